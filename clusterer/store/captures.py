"""Capture: an instance copies received packets into a short-lived stream while `tail` runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from clusterer.store import keys
from clusterer.store.badvalues import bad, ids, text
from clusterer.store.client import Store, translated

ASK_MS = 3_000
"""Time for which an instance captures after a request; `tail` repeats its request every second."""

ENTRIES_CAP = 64
"""Most entries in the stream, each of at most `MAX_ENTRY` bytes."""

MAX_ENTRY = 262_144
"""Bytes of packets in one entry (one packet always fits)."""

_EXPIRE_MS = 10_000


class Captured(NamedTuple):
    """One packet that an instance received."""

    number: int
    """Number of the packet since the capture began; packets that were left out make gaps."""
    at_ms: int
    """Time of the reception: UNIX ms of the instance's clock."""
    source: tuple[str, int]
    """IP address and port of the sender's connection."""
    frame: bytes


class Asked(NamedTuple):
    """The reply to a request for a capture."""

    silent_s: float | None
    """Seconds since the instance's last heartbeat; None if Redis does not know the instance."""
    last: str
    """Id of the capture's last entry, from which to read on."""


class CaptureStore(Store):
    """Writes and reads captures. Raises `StateUnavailable` when Redis does not answer in time."""

    def write(self, receiver: int, packets: Sequence[Captured]) -> None:
        """Add one entry; delete the oldest ones above `ENTRIES_CAP`."""
        key = keys.capture(receiver)
        with translated(self._settings, "write captured packets"):
            pipe = self._client.pipeline(transaction=False)
            fields: Any = {packet.number: _encoded(packet) for packet in packets}
            pipe.xadd(key, fields, maxlen=ENTRIES_CAP, approximate=False)
            pipe.pexpire(key, _EXPIRE_MS)
            pipe.execute()

    def ask(self, receiver: int) -> Asked:
        """Request a capture of `ASK_MS` from an instance."""
        what = f"request captures of instance {receiver}"
        names = [keys.modules(receiver), keys.capture(receiver)]
        silent_ms, last = self._run(what, "request_capture", names, ASK_MS)
        return Asked(None if silent_ms < 0 else silent_ms / 1000, last.decode())

    def read(self, receiver: int, after: str, block_ms: int) -> tuple[str, list[Captured]]:
        """Wait up to ``block_ms`` (below 1,000) for entries after the id ``after``.

        Returns the id of the last entry, ``after`` itself without a new one, and the packets.
        """
        with translated(self._settings, f"read captures of instance {receiver}"):
            found: Any = self._client.xread({keys.capture(receiver): after}, block=block_ms)
        if not found:
            return after, []
        ((_, entries),) = found
        decoded = (
            _decoded(receiver, entry_id, *item)
            for entry_id, fields in entries
            for item in fields.items()
        )
        return entries[-1][0].decode(), [packet for packet in decoded if packet is not None]

    def instances(self) -> list[int]:
        """Return the machine_ids of all instances that Redis knows."""
        (members,) = self._read("list the instances", ("smembers", keys.INSTANCES))
        return ids(keys.INSTANCES, members)


def _encoded(packet: Captured) -> bytes:
    head = f"{packet.at_ms} {packet.source[0]} {packet.source[1]} "
    return head.encode() + packet.frame


def _decoded(receiver: int, entry_id: bytes, number: bytes, value: bytes) -> Captured | None:
    try:
        at_ms, ip, port, frame = value.split(b" ", 3)
        return Captured(int(number), int(at_ms), (ip.decode(), int(port)), frame)
    except ValueError:
        bad(keys.capture(receiver), f"entry {text(entry_id)}", value, "a captured packet")
        return None
