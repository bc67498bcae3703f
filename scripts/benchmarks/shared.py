"""What the receivers count, in memory that the benchmark reads while they run."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import NamedTuple

MAX_NODES = 64
MAX_RECORDS = 1_000_000

_TIMED, _RECORDS = 0, 1
_BYTES = 8
_LAST = _BYTES + MAX_NODES
_FIRST_RECORD = _LAST + MAX_NODES
_WORDS = _FIRST_RECORD + 2 * MAX_RECORDS


class Arrival(NamedTuple):
    """One packet that arrived while `Shared.timed` was on."""

    latency_ms: float
    node: int
    """Index of the receiver, from 0."""
    sender: int
    """machine_id."""


class Shared:
    """Counters in a file that several processes map. One writer: the receivers."""

    def __init__(self, path: Path) -> None:
        with path.open("a+b") as file:
            file.truncate(_WORDS * 8)
            self._map = mmap.mmap(file.fileno(), _WORDS * 8)
        self._words = memoryview(self._map).cast("Q")

    @property
    def timed(self) -> bool:
        """Whether the receivers look into packets. Switch only while nothing is under way."""
        return bool(self._words[_TIMED])

    @timed.setter
    def timed(self, on: bool) -> None:
        self._words[_TIMED] = int(on)

    def clear(self) -> None:
        """Forget all arrivals."""
        self._words[_RECORDS] = 0

    # The receivers' side

    def count(self, node: int, size: int, now_ns: int) -> None:
        """Count ``size`` bytes that arrived at a node."""
        self._words[_BYTES + node] += size
        self._words[_LAST + node] = now_ns

    def record(self, node: int, sender: int, latency_ns: int) -> None:
        """Record one packet; what exceeds MAX_RECORDS is not kept."""
        number = self._words[_RECORDS]
        if number < MAX_RECORDS:
            at = _FIRST_RECORD + 2 * number
            self._words[at] = latency_ns
            self._words[at + 1] = node << 32 | sender
            self._words[_RECORDS] = number + 1

    # The benchmark's side

    def received(self) -> list[int]:
        """Return the bytes that arrived at each node since the start."""
        return self._words[_BYTES : _BYTES + MAX_NODES].tolist()

    def last_ns(self) -> int:
        """Return when the last byte arrived anywhere (monotonic ns)."""
        return max(self._words[_LAST : _LAST + MAX_NODES])

    def arrivals(self) -> list[Arrival]:
        """Return all packets recorded since `clear`."""
        end = _FIRST_RECORD + 2 * self._words[_RECORDS]
        flat = self._words[_FIRST_RECORD:end].tolist()
        return [
            Arrival(latency / 1e6, who >> 32, who & 0xFFFFFFFF)
            for latency, who in zip(flat[::2], flat[1::2], strict=True)
        ]
