"""A batch: what one read of a log returned, checked entry by entry and split by cluster."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Sequence

from clusterer.delivery.frames import (
    NAME_AT_2,
    NAME_AT_3,
    NAME_LENGTH_3,
    UNDEFINED,
    Modules,
    are_frames,
    are_frames3,
    frame_ends,
)
from clusterer.delivery.meter import Stamps
from clusterer.membership.views import ClusterKey
from clusterer.runtime.once import once
from clusterer.store.deliveries import LogEntry
from clusterer.store.format import FORMAT
from clusterer.wire import frame3

MAX_SEQUENCE = 2**53 - 1
"""Largest sequence to which Redis's Lua can count: append.lua writes no entry with a larger one."""

_NAMES = [b"cluster", b"protocol", b"n", b"packets", b"frames"]
"""Fields in the order in which append.lua writes them, behind the format."""
_WRITTEN = [b"format", *_NAMES]
_FORMAT = b"%d" % FORMAT
_FORMATS = frozenset(b"%d" % number for number in range(1, FORMAT + 1))
"""Formats with the fields above; a log may have entries of each of these formats."""


class Unreadable(Exception):
    """An entry of this format, or without a format, that append.lua cannot have written."""


class NotOurs(Exception):
    """An entry of a format that this version does not know."""

    def __init__(self, entry_format: str) -> None:
        super().__init__(entry_format)
        self.format = entry_format


Entry = tuple[bytes, bytes, int, int, bytes]
"""Cluster_id, protocol, the last packet's count in the cluster, number of packets, frames."""


def read_entry(fields: list[bytes]) -> Entry:
    """Return the values of an entry's flat fields. Raises `Unreadable`, `NotOurs`."""
    if len(fields) == 2 * len(_WRITTEN) and fields[1] == _FORMAT and fields[::2] == _WRITTEN:
        _, _, _, cluster, _, protocol, _, n, _, packets, _, frames = fields
    else:
        cluster, protocol, n, packets, frames = _read_slowly(fields)
    try:
        count, last_n = int(packets), int(n)
    except ValueError:
        raise Unreadable("n or packets is not a number") from None
    if not 0 < count <= last_n <= MAX_SEQUENCE:
        raise Unreadable(f"{count} packets cannot end with the {last_n}th of a cluster")
    if not are_frames(frames, count):
        raise Unreadable(f"frames are not {count} whole BIN frames")
    return cluster, protocol, last_n, count, frames


def _read_slowly(fields: list[bytes]) -> list[bytes]:
    """Return the values of an entry that does not begin with the present format."""
    names, values = fields[::2], fields[1::2]
    if names == _WRITTEN and values[0] in _FORMATS:
        return values[1:]
    if b"format" in names:
        found = values[names.index(b"format")]
        if found.isdigit() and int(found[:9]) > FORMAT:
            raise NotOurs(found[:9].decode())
    elif names == _NAMES:
        return values  # written before entries had a format
    raise Unreadable("fields are not those of an entry")


def cluster_of(cluster: bytes, protocol: bytes) -> ClusterKey:
    """Return the cluster that an entry is for. Raises `Unreadable`."""
    if not cluster.isdigit() or not 0 < int(cluster[:11]) < 2**31 or not protocol.isalnum():
        raise Unreadable("cluster or protocol is not a name of a cluster")
    return ClusterKey(int(cluster), protocol.decode())


class ClusterFrames:
    """The frames of one cluster in a batch, in order."""

    def __init__(self, cluster_id: int, *, dialect3: bool = False) -> None:
        self._cluster_id = cluster_id
        self.dialect3 = dialect3
        """Whether each frame names the node that it is for: see `addressed`."""
        self._frames: list[bytes] = []
        self._runs: list[tuple[int, int]] = []
        """Per entry: the sequence of its first packet, and the number of packets."""
        self._ids: list[bytes] = []
        self.packets = 0
        self.last_n = 0
        """The cluster's packet count at the last frame."""

    @property
    def first_n(self) -> int:
        """The cluster's packet count at the first frame, if none was trimmed in between."""
        return self.last_n - self.packets + 1

    def add(self, entry_id: bytes, frames: bytes, first: int, packets: int, last_n: int) -> None:
        """Append ``packets`` frames of one entry; the first has sequence ``first``.

        Raises `Unreadable` for frames of the other dialect.
        """
        if self.dialect3 or frames[NAME_LENGTH_3] != UNDEFINED:
            self.check_dialect(frames)
        self._ids.append(entry_id)
        self._frames.append(frames)
        self._runs.append((first, packets))
        self.packets += packets
        self.last_n = last_n

    def check_dialect(self, frames: bytes) -> None:
        """Raise `Unreadable` for frames that are not of the dialect of the cluster."""
        if self.dialect3:
            if not are_frames3(frames, self._cluster_id):
                fault = f"frames are not those of OpenSIPS 3.x for cluster {self._cluster_id}"
                raise Unreadable(fault)
        elif frames[NAME_LENGTH_3] != UNDEFINED:
            fault = f"frames of OpenSIPS 3.x; opensips_3_clusters lacks cluster {self._cluster_id}"
            raise Unreadable(fault)

    @once
    def data(self) -> bytes:
        """All frames one after the other, joined once for all peers."""
        return b"".join(self._frames) if len(self._frames) > 1 else self._frames[0]

    @once
    def ends(self) -> Sequence[int]:
        """Offset in ``data`` at which each frame ends."""
        return frame_ends(self.data)

    def addressed(self, machine_id: int) -> bytes:
        """Return ``data`` of the dialect 3.x for one node; each frame keeps its size."""
        return frame3.addressed(self.data, self.ends, machine_id)

    @once
    def modules(self) -> Modules:
        """The modules of the frames."""
        return Modules(self.data, self.ends, NAME_AT_3 if self.dialect3 else NAME_AT_2)

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


class Outbox:
    """Frames of one batch that the socket has not taken whole."""

    __slots__ = ("end", "frames", "last", "last_n", "offset", "skipped", "view")

    def __init__(self, frames: ClusterFrames, data: bytes, offset: int, last: int) -> None:
        self.frames = frames
        self.view = memoryview(data)
        """The bytes for this peer."""
        self.offset = offset
        """Bytes written."""
        self.end = len(self.view)
        """Bytes to be written in all."""
        self.last = last
        """Sequence that the peer reaches with the whole outbox; ``last_n``: packet count there."""
        self.last_n: int | None = frames.last_n
        self.skipped = 0
        """Frames not sent because the gate was closed; counted when the outbox is empty."""

    def cut(self) -> int:
        """Drop the frames of which no byte is written; return how many frames are left."""
        ends = self.frames.ends
        whole = bisect_right(ends, self.offset)
        begun = whole < len(ends) and self.offset > (ends[whole - 1] if whole else 0)
        kept = whole + int(begun)
        self.end = ends[kept - 1] if kept else 0
        return kept


class Batch:
    """Consecutive entries of one sender's log, read from sequence ``after`` on.

    A batch ends before the first unreadable entry. If the first entry of all is unreadable, the
    batch is a *gap*: the batch has no packets, and passes over the unreadable entries up to the
    first readable one. If a packet behind an unreadable entry has the sequence of that entry,
    another program has written the entry: the entry takes no sequence, and the batch continues with
    the packet.
    """

    __slots__ = (
        "_dialect3",
        "after",
        "clusters",
        "last",
        "not_ours",
        "packets",
        "size",
        "taken",
        "unread",
    )

    def __init__(
        self, entries: Sequence[LogEntry], after: int, dialect3: Collection[int] = ()
    ) -> None:
        """``dialect3``: the cluster_ids of the clusters of OpenSIPS 3.x."""
        self._dialect3 = dialect3
        self.after = self.last = after
        self.packets = 0
        self.size = 0
        """Bytes of all frames."""
        self.clusters: dict[ClusterKey, ClusterFrames] = {}
        self.taken = 0
        """Entries that the batch has, or passes over."""
        self.unread: list[tuple[bytes, str]] = []
        """Id and fault of each entry that the batch passes over."""
        self.not_ours: tuple[bytes, str] | None = None
        """Id and format of the next entry, if it has a format that this version does not know; the
        format is empty if the sequence is one that no packet can have."""
        self._read(entries)

    def _read(self, entries: Sequence[LogEntry]) -> None:
        cluster = protocol = b""
        current = ClusterFrames(0)
        for entry_id, fields in entries:
            last = sequence_of(entry_id)
            try:
                found_cluster, found_protocol, n, packets, frames = self._checked(fields, last)
                if self.unread and not self.packets and self.last > self.after:
                    return
                if found_cluster != cluster or found_protocol != protocol:
                    current = self._frames_of(cluster_of(found_cluster, found_protocol), frames)
                    cluster, protocol = found_cluster, found_protocol
                current.add(entry_id, frames, last - packets + 1, packets, n)
            except NotOurs as error:
                self.not_ours = entry_id, error.format
                return
            except Unreadable as error:
                if self.packets:
                    return
                self.unread.append((entry_id, str(error)))
            else:
                self.packets += packets
                self.size += len(frames)
            self.last = last
            self.taken += 1

    def _checked(self, fields: list[bytes], last: int) -> Entry:
        """Return the entry with sequence ``last``, without packets that are before the batch."""
        if last > MAX_SEQUENCE:
            raise NotOurs("")
        entry = read_entry(fields)
        cluster, protocol, n, packets, frames = entry
        done = self.last - last + packets
        if done > 0 and self.unread and not self.packets:
            self.last = self.after
            done = self.last - last + packets
        if done <= 0:
            return entry
        if self.packets or done >= packets:  # only the first packets may be delivered in part
            raise Unreadable(f"{packets} packets overlap with those before")
        return cluster, protocol, n, packets - done, frames[frame_ends(frames)[done - 1] :]

    def _frames_of(self, key: ClusterKey, frames: bytes) -> ClusterFrames:
        """Return what gets ``frames``. Raises `Unreadable`, and makes nothing then."""
        found = self.clusters.get(key)
        if found is None:
            found = ClusterFrames(key.cluster_id, dialect3=key.cluster_id in self._dialect3)
            found.check_dialect(frames)
            self.clusters[key] = found
        return found


def sequence_of(entry_id: bytes) -> int:
    """Return the sequence in an entry's id, ``<sequence>-<ms>``."""
    return int(entry_id[: entry_id.index(b"-")])


def ms_of(entry_id: bytes) -> int:
    """Return the Redis ms in an entry's id."""
    return int(entry_id[entry_id.index(b"-") + 1 :])
