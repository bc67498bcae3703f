"""What one read of a log brought, split by cluster."""

from __future__ import annotations

from collections.abc import Sequence

from clusterer.delivery.frames import Modules, frame_ends
from clusterer.delivery.meter import Stamps
from clusterer.once import once
from clusterer.store.deliveries import LogEntry
from clusterer.store.views import ClusterKey


class Slice:
    """The frames of one cluster in a batch, in order."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._runs: list[tuple[int, int]] = []
        """Of each part, the sequence of its first packet and how many packets it has."""
        self._ids: list[bytes] = []
        self.packets = 0
        self.last_n = 0
        """The cluster's packet count at the last frame."""

    @property
    def first_n(self) -> int:
        """The cluster's packet count at the first frame, if none was trimmed in between."""
        return self.last_n - self.packets + 1

    def add(self, entry_id: bytes, frames: bytes, first: int, packets: int, last_n: int) -> None:
        """Append ``packets`` frames in one piece, of which the first has sequence ``first``."""
        self._ids.append(entry_id)
        self._parts.append(frames)
        self._runs.append((first, packets))
        self.packets += packets
        self.last_n = last_n

    @once
    def blob(self) -> bytes:
        """All frames in one piece, made once for all destinations."""
        return b"".join(self._parts) if len(self._parts) > 1 else self._parts[0]

    @once
    def ends(self) -> Sequence[int]:
        """Offset in ``blob`` at which each frame ends."""
        return frame_ends(self.blob)

    @once
    def modules(self) -> Modules:
        """Of which modules the frames are."""
        return Modules(self.blob, self.ends)

    @once
    def stamps(self) -> Stamps:
        """When each frame was appended to the log."""
        return Stamps(
            [(ms_of(found), run[1]) for found, run in zip(self._ids, self._runs, strict=True)]
        )

    def sequence(self, index: int) -> int:
        """Return the log sequence of one frame."""
        for first, packets in self._runs:
            if index < packets:
                return first + index
            index -= packets
        raise IndexError(index)


class Batch:
    """Consecutive entries of one sender's log, read from position ``after``."""

    __slots__ = ("after", "last", "packets", "size", "slices")

    def __init__(self, entries: Sequence[LogEntry], after: int) -> None:
        self.after = after
        self.last = sequence_of(entries[-1][0])
        self.packets = 0
        self.size = 0
        """Bytes of all frames."""
        self.slices: dict[ClusterKey, Slice] = {}
        cluster = protocol = b""
        current = Slice()
        for entry_id, fields in entries:
            # Flat fields in the order in which append.lua writes them.
            _, found_cluster, _, found_protocol, _, n, _, count, _, frames = fields
            if found_cluster != cluster or found_protocol != protocol:
                cluster, protocol = found_cluster, found_protocol
                current = self._slice(ClusterKey(int(cluster), protocol.decode()))
            packets = int(count)
            first = sequence_of(entry_id) - packets + 1
            if first <= after:  # only the first entry: part of it was delivered before
                frames = frames[frame_ends(frames)[after - first] :]
                packets -= after - first + 1
                first = after + 1
            self.packets += packets
            self.size += len(frames)
            current.add(entry_id, frames, first, packets, int(n))

    def _slice(self, key: ClusterKey) -> Slice:
        return self.slices.setdefault(key, Slice())


def sequence_of(entry_id: bytes) -> int:
    """Return the sequence in an entry's id, ``<sequence>-<ms>``."""
    return int(entry_id[: entry_id.index(b"-")])


def ms_of(entry_id: bytes) -> int:
    """Return the Redis ms in an entry's id."""
    return int(entry_id[entry_id.index(b"-") + 1 :])
