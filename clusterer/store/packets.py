"""The sender's end of its packet log."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import groupby

from clusterer.errors import ClustererError
from clusterer.settings import Settings
from clusterer.store import keys
from clusterer.store.channel import Channel
from clusterer.store.client import translated
from clusterer.store.scripts import script
from clusterer.store.views import ClusterKey

MAX_GROUP = 1000
"""Frames of concurrent callers that share a round trip."""


MAX_PIECE = 16 * 1024
"""Bytes of frames that one log entry holds (a single frame may be larger). Entries cost Redis
and the worker more than packets do."""


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
        queue = settings.delivery_queue
        self._channel = Channel(settings)
        self._script = script("append")
        self._head = (
            keys.log(sender),
            keys.counters(sender),
            keys.pending(queue),
            keys.lease(sender),
            keys.wake(queue),
            keys.doorbell(queue),
            keys.QUEUES,
        )
        self._fixed = (str(sender), str(settings.log_max_packets), queue)
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
                replies = self._channel.run(self._script, [self._call(g) for g in groups])
        except ClustererError as error:
            for entry in entries:
                entry.error, entry.done = error, True
            return
        for group, reply in zip(groups, replies, strict=True):
            for entry in group:
                entry.done = True
            # One of the callers enqueues the job.
            group[0].enqueue = bool(reply[1])

    def _call(self, group: list[_Entry]) -> tuple[bytes | str, ...]:
        sender, limit, queue = self._fixed
        key = group[0].key
        frames = group[0].frames if len(group) == 1 else [f for e in group for f in e.frames]
        head = ("7", *self._head, sender, str(key.cluster_id), key.protocol, limit, queue)
        if len(frames) == 1:
            return (*head, "1", frames[0])
        pieces: list[bytes | str] = []
        for piece in _pieces(frames):
            pieces += piece
        return (*head, *pieces)


def _pieces(frames: Sequence[bytes]) -> Iterator[tuple[str, bytes]]:
    """Join frames into pieces of bounded size; give the number in each and the piece."""
    piece: list[bytes] = []
    size = 0
    for frame in frames:
        if size + len(frame) > MAX_PIECE and piece:
            yield str(len(piece)), b"".join(piece)
            piece, size = [], 0
        piece.append(frame)
        size += len(frame)
    if piece:
        yield str(len(piece)), b"".join(piece)
