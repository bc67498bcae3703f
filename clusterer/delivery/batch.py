"""What one read of a log brought, split by cluster."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate

from clusterer.store.drains import LogEntry
from clusterer.store.views import ClusterKey


class Slice:
    """The frames of one cluster in a batch, in order."""

    def __init__(self, first_n: int) -> None:
        self.frames: list[bytes] = []
        self.ids: list[bytes] = []
        self.first_n = first_n
        """The cluster's packet count at the first frame."""

    @property
    def last_n(self) -> int:
        """The cluster's packet count at the last frame; they are counted without gaps."""
        return self.first_n + len(self.frames) - 1

    @cached_property
    def blob(self) -> bytes:
        """All frames in one piece, made once for all destinations."""
        return b"".join(self.frames)

    @cached_property
    def ends(self) -> list[int]:
        """Offset in ``blob`` at which each frame ends."""
        return list(accumulate(map(len, self.frames)))

    def sequence(self, index: int) -> int:
        """Return the log sequence of one frame."""
        return sequence_of(self.ids[index])


class Batch:
    """Consecutive entries of one sender's log."""

    __slots__ = ("first", "last", "size", "slices")

    def __init__(self, entries: Sequence[LogEntry]) -> None:
        self.first = sequence_of(entries[0][0])
        self.last = sequence_of(entries[-1][0])
        self.size = len(entries)
        self.slices: dict[ClusterKey, Slice] = {}
        cluster = protocol = b""
        current = Slice(0)
        for entry_id, fields in entries:
            # Flat fields in the order in which append.lua writes them.
            _, found_cluster, _, found_protocol, _, n, _, frame = fields
            if found_cluster != cluster or found_protocol != protocol:
                cluster, protocol = found_cluster, found_protocol
                current = self._slice(ClusterKey(int(cluster), protocol.decode()), int(n))
            current.ids.append(entry_id)
            current.frames.append(frame)

    def _slice(self, key: ClusterKey, n: int) -> Slice:
        found = self.slices.get(key)
        if found is None:
            found = self.slices[key] = Slice(n)
        return found


def sequence_of(entry_id: bytes) -> int:
    """Return the sequence in an entry's id, ``<sequence>-<ms>``."""
    return int(entry_id[: entry_id.index(b"-")])
