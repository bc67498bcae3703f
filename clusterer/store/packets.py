"""The sender's end of its packet log."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import groupby

from clusterer.errors import ClustererError
from clusterer.settings import Settings
from clusterer.store import keys
from clusterer.store.channel import Channel, pack
from clusterer.store.client import translated
from clusterer.store.scripts import Script, script
from clusterer.store.views import ClusterKey

MAX_GROUP = 1000
"""Frames of concurrent callers that share a round trip."""


MAX_PIECE = 16 * 1024
"""Bytes of frames that one log entry holds (a single frame may be larger). Entries cost Redis
and the worker more than packets do."""

NOT_DRAINED = -1
"""append.lua's reply when it was given too few keys for a log that nobody drains."""


class _Entry:
    """One caller's frames, on their way into the log."""

    __slots__ = ("done", "enqueue", "error", "frames", "key")

    def __init__(self, key: ClusterKey, frames: Sequence[bytes]) -> None:
        self.key = key
        self.frames = frames
        self.done = False
        self.enqueue = False
        self.error: ClustererError | None = None


class PacketLog:
    """Appends one machine's packets to its log. Safe to share between threads.

    Threads that append at the same moment share a round trip: whoever gets the lock sends what
    all of them have queued.
    """

    def __init__(self, settings: Settings, sender: int) -> None:
        self._settings = settings
        self._channel = Channel(settings)
        self._script = script("append")
        self._commands = AppendCommands(settings, sender, self._script)
        self._drained = False
        """Whether the last append found the log being drained."""
        self._queued: deque[_Entry] = deque()
        self._lock = threading.Lock()

    def append(self, key: ClusterKey, frames: Sequence[bytes]) -> bool:
        """Append ``frames`` for the nodes of a cluster, in order and all or none.

        Returns True if the caller must enqueue a delivery job: nobody delivers for this sender
        and no job is on its way. Raises `StateUnavailable`; the frames may then have been stored
        nevertheless, if it was only the answer that was lost.
        """
        entry = _Entry(key, frames)
        self._queued.append(entry)
        with self._lock:
            while not entry.done:
                self._send(self._take())
        if entry.error is not None:
            raise entry.error
        return entry.enqueue

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._channel.close()

    def _take(self) -> list[_Entry]:
        """Take the queued entries, oldest first; all of them unless they are too many."""
        taken: list[_Entry] = []
        size = 0
        while self._queued and (not taken or size < MAX_GROUP):
            entry = self._queued.popleft()
            size += len(entry.frames)
            taken.append(entry)
        return taken

    def _send(self, entries: list[_Entry]) -> None:
        if len(entries) == 1:
            groups = [entries]
        else:
            groups = [list(group) for _, group in groupby(entries, lambda entry: entry.key)]
        try:
            with translated(self._settings, "append to the packet log"):
                calls = self._append(groups)
        except ClustererError as error:
            for entry in entries:
                entry.error, entry.done = error, True
            return
        for group, call in zip(groups, calls, strict=True):
            # One of the callers enqueues the job.
            group[0].enqueue = call
            for entry in group:
                entry.done = True

    def _append(self, groups: list[list[_Entry]]) -> list[bool]:
        """Append; return for each group whether a job must be enqueued."""
        pack, drained = self._commands.pack, self._drained
        replies = self._channel.run(self._script, [pack(g, drained=drained) for g in groups])
        if NOT_DRAINED in replies:
            missed = [at for at, reply in enumerate(replies) if reply == NOT_DRAINED]
            commands = [pack(groups[at], drained=False) for at in missed]
            for at, reply in zip(missed, self._channel.run(self._script, commands), strict=True):
                replies[at] = reply
            self._drained = False
        else:
            self._drained = 1 not in replies
        return [reply == 1 for reply in replies]


class AppendCommands:
    """Packs calls of append.lua: all but the packets is made once per cluster."""

    def __init__(self, settings: Settings, sender: int, append: Script) -> None:
        queue = settings.delivery_queue
        self._sha = append.sha
        self._limit = str(settings.log_max_packets)
        self._keys = (keys.log(sender), keys.counters(sender), keys.lease(sender))
        self._more_keys = (keys.pending(queue), keys.wake(queue), keys.doorbell(queue), keys.QUEUES)
        self._more_arguments = (str(sender), queue)
        self._heads: dict[tuple[ClusterKey, bool], tuple[int, bytes]] = {}

    def pack(self, group: list[_Entry], *, drained: bool) -> bytes:
        """Return the command that appends the frames of ``group``, all of one cluster.

        ``drained`` makes one that does nothing unless the log is being drained.
        """
        key = group[0].key
        head = self._heads.get((key, drained)) or self._head(key, drained=drained)
        frames = group[0].frames if len(group) == 1 else [f for e in group for f in e.frames]
        if len(frames) == 1:
            frame = frames[0]
            return b"*%d\r\n%b$1\r\n1\r\n$%d\r\n%b\r\n" % (head[0] + 2, head[1], len(frame), frame)
        pieces = list(_pieces(frames))
        parts = [b"*%d\r\n%b" % (head[0] + 2 * len(pieces), head[1])]
        for count, piece in pieces:
            parts.append(b"$%d\r\n%d\r\n$%d\r\n" % (len(str(count)), count, len(piece)))
            parts += (piece, b"\r\n")
        return b"".join(parts)

    def _head(self, key: ClusterKey, *, drained: bool) -> tuple[int, bytes]:
        """Return the number of parts, and the parts themselves, that come before the packets."""
        names = self._keys if drained else self._keys + self._more_keys
        more = () if drained else self._more_arguments
        arguments = (str(key.cluster_id), key.protocol, self._limit, *more)
        parts = ("EVALSHA", self._sha, str(len(names)), *names, *arguments)
        packed = pack(*parts)
        head = self._heads[key, drained] = len(parts), packed[packed.index(b"\r\n") + 2 :]
        return head


def _pieces(frames: Sequence[bytes]) -> Iterator[tuple[int, bytes]]:
    """Join frames into pieces of bounded size; give the number in each and the piece."""
    piece: list[bytes] = []
    size = 0
    for frame in frames:
        if size + len(frame) > MAX_PIECE and piece:
            yield len(piece), b"".join(piece)
            piece, size = [], 0
        piece.append(frame)
        size += len(frame)
    if piece:
        yield len(piece), b"".join(piece)
