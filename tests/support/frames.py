"""The frames that tests send."""

from __future__ import annotations

from clusterer.wire import PacketBuilder


def frame(
    number: int | None = None,
    *,
    size: int = 200,
    kind: int = 1,
    sender: int = 1,
    module: str = "ratelimit",
) -> bytes:
    """Return a frame of ``size`` bytes, a packet of type ``kind``: ``number``, then padding."""
    packet = PacketBuilder(module, kind, sender)
    if number is not None:
        packet.push_int(number)
    return packet.push_str(b"x" * (size - packet.size - 4)).build().encode()
