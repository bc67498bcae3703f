"""Appends packets to the log of a sender."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from copy import copy
from itertools import groupby

import redis

from clusterer.errors import ClustererError
from clusterer.membership.views import ClusterKey
from clusterer.runtime import forks
from clusterer.settings import Settings
from clusterer.store.append_commands import MAX_CALL, AppendCommands
from clusterer.store.badvalues import WrongTypeError, is_bad_data, wrong_types
from clusterer.store.channel import Channel
from clusterer.store.client import connect, translated
from clusterer.store.format import require_format
from clusterer.store.scripts import script

MAX_GROUP = 1000
"""Frames of concurrent callers that share a round trip."""


DRAINED, ENQUEUE, NOT_APPENDED = 0, 1, -1
"""Replies of append.lua: a worker holds the lease; the caller must enqueue a job; the script got
only the keys for a leased log, and no worker holds the lease."""

_WHAT = "append to the packet log"


class _Entry:
    """One caller's frames that the log does not have yet."""

    __slots__ = ("done", "enqueue", "error", "frames", "key")

    def __init__(self, key: ClusterKey, frames: Sequence[bytes]) -> None:
        self.key = key
        self.frames = frames
        self.done = False
        self.enqueue = False
        self.error: ClustererError | None = None


class PacketLog:
    """Appends the packets of one sender to its log. Safe to share between threads.

    Threads that append at the same moment share a round trip: while one thread waits for Redis the
    other threads queue their entries, and the next thread that gets the lock sends all queued
    entries. An entry stays in the queue until it is done: a thread that is interrupted while it
    sends (Ctrl-C) leaves the other entries to the next thread, and Redis may store these twice. A
    forked child has an empty queue and a connection of its own.
    """

    def __init__(self, settings: Settings, sender: int) -> None:
        self._settings = settings
        self._channel = Channel(settings)
        self._script = script("append")
        self._commands = AppendCommands(settings, sender, self._script)
        self._checked = False
        """Whether Redis is known to have our format."""
        self._drained = False
        """Whether a worker had leased the log at the last append."""
        self._queued: deque[_Entry] = deque()
        self._lock = threading.Lock()
        forks.renew_in_child(self)

    def renew_in_child(self) -> None:
        """Leave the queue and the lock to the parent, whose threads use them."""
        self._queued = deque()
        self._lock = threading.Lock()

    def append(self, key: ClusterKey, frames: Sequence[bytes]) -> bool:
        """Append ``frames`` for the nodes of a cluster, in order and all or none.

        One script call for frames of any size: `sub_batches` makes parts that Redis stores quickly.
        Returns True if the caller must enqueue a delivery job: no worker has leased the log, and
        no job is enqueued. Raises `StateUnavailable`; if only Redis's answer was lost, Redis has
        stored the frames nevertheless.
        """
        # `with` alone: between a call of `acquire` and a `try` an interrupt would keep the lock.
        if not self._queued and not self._lock.locked():
            with self._lock, translated(self._settings, _WHAT):
                return self._append(((key, frames),))[0]
        entry = _Entry(key, frames)
        self._queued.append(entry)
        try:
            with self._lock:
                while not entry.done:
                    self._send(self._next())
                    self._drop_done()
        finally:
            entry.done = True  # also after an interrupt: no other thread sends it then
        if entry.error is not None:
            raise entry.error
        return entry.enqueue

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._channel.close()

    def _next(self) -> list[_Entry]:
        """Return queued entries for one round trip, oldest first."""
        found: list[_Entry] = []
        count = size = 0
        for entry in self._queued.copy():
            if found and (count >= MAX_GROUP or size >= MAX_CALL):
                break
            if not entry.done:
                count += len(entry.frames)
                size += sum(map(len, entry.frames))
                found.append(entry)
        return found

    def _drop_done(self) -> None:
        """Remove entries that are done from the queue's head; only for the lock's holder."""
        while self._queued and self._queued[0].done:
            self._queued.popleft()

    def _send(self, entries: list[_Entry]) -> None:
        groups = [list(group) for _, group in groupby(entries, lambda entry: entry.key)]
        calls = [(group[0].key, [f for one in group for f in one.frames]) for group in groups]
        try:
            with translated(self._settings, _WHAT):
                enqueue = self._append(calls)
        except ClustererError as error:
            for entry in entries:
                entry.error, entry.done = copy(error), True  # each caller changes its own copy
                entry.error.__cause__ = error.__cause__
            return
        for group, wanted in zip(groups, enqueue, strict=True):
            group[0].enqueue = wanted  # one of the callers enqueues the job
            for entry in group:
                entry.done = True

    def _append(self, calls: Sequence[tuple[ClusterKey, Sequence[bytes]]]) -> list[bool]:
        """Append each cluster's frames; return for each whether a caller must enqueue a job."""
        if not self._checked:
            with connect(self._settings) as client:
                require_format(self._settings, client)
            self._checked = True
        pack, drained = self._commands.pack, self._drained
        replies = self._run([pack(key, frames, drained=drained) for key, frames in calls])
        if NOT_APPENDED in replies:
            missed = [at for at, reply in enumerate(replies) if reply == NOT_APPENDED]
            again = self._run([pack(*calls[at], drained=False) for at in missed])
            for at, reply in zip(missed, again, strict=True):
                replies[at] = reply
        self._drained = replies[-1] == DRAINED
        return [reply == ENQUEUE for reply in replies]

    def _run(self, commands: list[bytes]) -> list[int]:
        try:
            return self._channel.run(self._script, commands)
        except redis.ResponseError as error:
            if not is_bad_data(error):
                raise
            with connect(self._settings) as client:
                wrong = wrong_types(client, self._commands.names)
            if not wrong:
                raise
            raise WrongTypeError(wrong[0]) from error
