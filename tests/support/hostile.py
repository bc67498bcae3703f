"""Streams that begin like BIN and then lie: valid marker, hostile rest. Seeded, fast to make."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

from clusterer.errors import ClustererError, WireError
from clusterer.payloads import decode
from clusterer.wire import FrameDecoder, PacketBuilder

_LENGTHS = (
    0,
    1,
    15,
    16,
    19,
    20,
    21,
    24,
    28,
    33,
    64,
    255,
    256,
    4096,
    32_767,
    32_768,
    65_534,
    65_535,
)
_NAME_LENGTHS = (0, 1, 2, 6, 9, 10, 16, 255, 65_535, 2**31 - 1, -1, -(2**31))
_FIELDS = (0, 1, 4, -1, 2**31 - 1, -(2**31), 65_535, 9)
_KINDS = (("ratelimit", range(-1, 2)), ("dialog", range(6)), ("ul", range(7)), ("x", range(2)))
_HEAD = struct.Struct("<4sHHhHi")
_INT = struct.Struct("<i")
_POOL = random.Random(1).randbytes(70_000)


def streams(seed: int, count: int) -> Iterator[bytes]:
    """Yield ``count`` streams; the same for the same seed."""
    rng = random.Random(seed)
    makers = (_lying_header, _lying_header, _lying_header, _lying_fields, _bent_frames)
    for number in range(count):
        yield makers[number % len(makers)](rng)


def _lying_header(rng: random.Random) -> bytes:
    """A header whose lengths are chosen to hurt, and some bytes behind it."""
    choice = rng.random
    length = _LENGTHS[int(choice() * len(_LENGTHS))] if choice() < 0.7 else int(choice() * 65_536)
    name = _NAME_LENGTHS[int(choice() * len(_NAME_LENGTHS))]
    head = _HEAD.pack(b"P4CK", length, 0, int(choice() * 9) - 4, 0, name)
    size = length - 16 if choice() < 0.2 else int(choice() * 60)
    at = int(choice() * 1_000)
    return head + _POOL[at : at + max(0, size)]


def _lying_fields(rng: random.Random) -> bytes:
    """A frame that is one, of a module that is one, with fields that are none."""
    choice = rng.random
    module, kinds = _KINDS[int(choice() * len(_KINDS))]
    parts = []
    for _ in range(int(choice() * 6)):
        parts.append(_INT.pack(_FIELDS[int(choice() * len(_FIELDS))]))
        at = int(choice() * 1_000)
        parts.append(_POOL[at : at + int(choice() * 12)])
    packet = PacketBuilder(module, rng.choice(kinds), 2).build()
    return packet._replace(payload=b"".join(parts)).encode()


def _bent_frames(rng: random.Random) -> bytes:
    """Two good frames in which one byte is another, maybe with zero words between or a cut end."""
    choice = rng.random
    good = PacketBuilder("ratelimit", 0, 2).push_str("pipe").push_int(1).push_int(5).push_int(7)
    frame = good.build().encode()
    data = bytearray(frame + bytes(4 * int(choice() * 3)) + frame)
    data[4 + int(choice() * (len(data) - 4))] = int(choice() * 256)
    return bytes(data[: len(data) - int(choice() * 2) * int(choice() * 50)])


MAKERS: dict[str, Callable[[random.Random], bytes]] = {
    "header": _lying_header,
    "fields": _lying_fields,
    "bent": _bent_frames,
}


def attack(data: bytes, split: int) -> int:
    """Feed a stream in pieces of ``split`` bytes (0: at once) and read every packet's message.

    Returns the number of packets. Raises `AssertionError` if the decoder goes on after an error
    or keeps more than a frame; anything else but our own errors passes through.
    """
    decoder, packets = FrameDecoder(), 0
    pieces = [data] if not split else [data[a : a + split] for a in range(0, len(data), split)]
    try:
        for piece in pieces:
            for packet in decoder.feed(piece):
                packets += 1
                _read(packet)
    except WireError:
        try:
            decoder.feed(b"P4CK")
        except WireError:
            return packets
        raise AssertionError(f"the decoder went on after an error: {data[:80]!r}") from None
    assert len(decoder._rest) <= 65_535
    return packets


def _read(packet: object) -> None:
    try:
        message = decode(packet)  # type: ignore[arg-type]  # a Packet
        if message is not None:
            message.shown()
    except ClustererError:
        return


def resident_mb() -> float:
    """Return how much memory this process has."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 / 2**20
