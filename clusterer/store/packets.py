"""Appends packets to the log of a sender."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from copy import copy
from itertools import groupby
from time import monotonic
from typing import NamedTuple

import redis

from clusterer.errors import ClustererError, StateUnavailable, WrongKey
from clusterer.membership.views import ClusterKey
from clusterer.runtime import forks
from clusterer.runtime.logs import LimitedLog
from clusterer.settings import OVERFLOW_DROP_OLDEST, Settings
from clusterer.store.append_commands import AppendCommands, Replicas
from clusterer.store.append_queue import AppendQueue, Entry
from clusterer.store.badvalues import WrongTypeError, is_bad_data, wrong_types
from clusterer.store.channel import Channel
from clusterer.store.client import connect, translated
from clusterer.store.continuity import Continuity
from clusterer.store.format import require_format
from clusterer.store.scripts import script

log = logging.getLogger(__name__)

LEASED, ENQUEUE, NOT_APPENDED = 0, 1, -1
"""Replies of append.lua: a worker holds the lease; the caller must enqueue a job; the script got
only the keys for a leased log, and no worker holds the lease. The first two are the last two bits
of the reply; the bits before them are the cluster's packet count."""

_WHAT = "append to the packet log"

_LOG_INTERVAL_S = 10.0
"""Between two log lines about packets of one cluster that Redis refused."""


class Round(NamedTuple):
    """What one round trip for queued entries came to."""

    enqueue: bool
    """Whether a delivery job must be enqueued."""
    error: ClustererError | None
    """Why the round failed; the log has none of its posted packets then, for all that is known."""


def _refuse_no_cluster(key: ClusterKey) -> ClustererError | None:
    return None


class PacketLog:
    """Appends the packets of one sender to its log. Safe to share between threads.

    Threads that append at the same moment share a round trip: while one thread waits for Redis the
    other threads queue their entries, and the next thread that gets the lock sends all queued
    entries. An entry stays in the queue until it is done: a thread that is interrupted while it
    sends (Ctrl-C) leaves the other entries to the next thread, and Redis may store these twice. A
    forked child has an empty queue and a connection of its own.
    """

    def __init__(
        self,
        settings: Settings,
        sender: int,
        refusal: Callable[[ClusterKey], ClustererError | None] = _refuse_no_cluster,
    ) -> None:
        """``refusal`` returns why packets posted to a cluster are refused, or raises
        `StateUnavailable`; asked about clusters that `post` did not know.
        """
        self._settings = settings
        self._sender = sender
        self._refusal = refusal
        self._continuity = Continuity(sender)
        self._channel = Channel(settings, self._continuity.resume)
        self._script = script("append")
        self._commands = AppendCommands(settings, sender, self._script)
        self._replicas = Replicas(settings.wait_replicas) if settings.wait_replicas else None
        self._checked = False
        """Whether Redis is known to have our format."""
        self._leased = False
        """Whether a worker had leased the log at the last append."""
        self.queue = AppendQueue(
            settings.post_buffer, drop_oldest=settings.post_overflow == OVERFLOW_DROP_OLDEST
        )
        self._lock = threading.Lock()
        self._limited = LimitedLog(log, _LOG_INTERVAL_S)
        forks.renew_in_child(self)

    def renew_in_child(self) -> None:
        """Leave the queue and the lock to the parent, whose threads use them."""
        self.queue.renew()
        self._lock = threading.Lock()

    def append(self, key: ClusterKey, frames: Sequence[bytes]) -> bool:
        """Append ``frames`` for the nodes of a cluster, in order and all or none.

        One script call for frames of any size: `sub_batches` makes parts that Redis stores quickly.
        Returns True if the caller must enqueue a delivery job: no worker has leased the log, and
        no job is enqueued. Raises `StateUnavailable`; if only Redis's answer was lost, or too few
        replicas have the frames, Redis has stored them nevertheless.
        """
        # `with` alone: between a call of `acquire` and a `try` an interrupt would keep the lock.
        if not self.queue and not self._lock.locked():
            with self._lock, translated(self._settings, _WHAT):
                (reply,) = self._append(((key, frames),))
                if isinstance(reply, redis.ResponseError):
                    raise reply
                shortage = self._shortage()
                if shortage is not None:
                    shortage.enqueue = reply == ENQUEUE
                    raise shortage
                return reply == ENQUEUE
        entry = Entry(key, list(frames))
        self.queue.add(entry)
        enqueue = False
        try:
            with self._lock:
                while not entry.done:
                    enqueue = self._send_queued().enqueue or enqueue
        finally:
            self.queue.leave(entry)
        if entry.error is not None:
            error = copy(entry.error)  # each caller changes its own copy
            error.__cause__ = entry.error.__cause__
            if isinstance(error, StateUnavailable):
                error.enqueue = enqueue
            raise error
        return enqueue

    def send_queued(self) -> Round:
        """Send queued entries in one round trip: for threads that send for others."""
        with self._lock:
            return self._send_queued()

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._channel.close()

    def _send_queued(self) -> Round:
        entries = self.queue.take()
        try:
            with translated(self._settings, _WHAT):
                entries = self._without_refused(entries)
                groups = [list(group) for _, group in groupby(entries, lambda entry: entry.key)]
                calls = [(same[0].key, [f for e in same for f in e.frames]) for same in groups]
                replies = self._append(calls) if calls else []
        except ClustererError as error:
            self.queue.keep(error)
            return Round(False, error)
        failure: ClustererError | None = None
        for group, reply in zip(groups, replies, strict=True):
            if not isinstance(reply, redis.ResponseError):
                self._finish_stored(group)
                continue
            found = self._error_of(reply)
            if isinstance(found, WrongKey):
                self._refuse(group, found)
            else:
                failure = found
        if failure is not None:
            self.queue.keep(failure)
        return Round(ENQUEUE in replies, failure)

    def _finish_stored(self, entries: list[Entry]) -> None:
        """Finish entries that the log has; without enough replicas their callers get an error."""
        shortage = self._shortage()
        if shortage is not None:
            waiting = [entry for entry in entries if not entry.posted]
            self.queue.finish(waiting, shortage)
            posted = sum(len(entry.frames) for entry in entries if entry.posted)
            self._limited.warning(
                (entries[0].key, Replicas),
                monotonic(),
                "sender %d: %d posted packets and %d others: %s",
                self._sender,
                posted,
                sum(len(entry.frames) for entry in waiting),
                shortage,
            )
        self.queue.finish(entries)

    def _shortage(self) -> StateUnavailable | None:
        """Return the error for the last round trip if too few replicas have its packets."""
        return None if self._replicas is None else self._replicas.shortage()

    def _without_refused(self, entries: list[Entry]) -> list[Entry]:
        """Return the entries whose cluster exists; only `post` adds others."""
        unknown = {entry.key for entry in entries if not entry.is_known}
        for key in unknown:
            same = [entry for entry in entries if entry.key == key]
            error = self._refusal(key)
            if error is not None:
                self._refuse([entry for entry in same if not entry.is_known], error)
            for entry in same:
                entry.is_known = True
        return [entry for entry in entries if not entry.done]

    def _refuse(self, entries: list[Entry], error: ClustererError) -> None:
        refused = self.queue.finish(entries, error)
        if refused:
            self._limited.warning(
                (entries[0].key, type(error)),
                monotonic(),
                "sender %d: %d posted packets to cluster %s refused: %s",
                self._sender,
                refused,
                entries[0].key,
                error,
            )

    def _error_of(self, reply: redis.ResponseError) -> ClustererError:
        try:
            translated(self._settings, _WHAT).__exit__(type(reply), reply, None)
        except ClustererError as error:
            return error
        return ClustererError(str(reply))  # `translated` knows every error of Redis

    def _append(
        self, calls: Sequence[tuple[ClusterKey, Sequence[bytes]]]
    ) -> list[int | redis.ResponseError]:
        """Append each cluster's frames; return the script's reply, or error, for each."""
        if not self._checked:
            with connect(self._settings) as client:
                require_format(self._settings, client)
            self._checked = True
        pack, leased = self._commands.pack, self._leased
        replies = self._run([pack(key, frames, leased=leased) for key, frames in calls])
        if NOT_APPENDED in replies:
            missed = [at for at, reply in enumerate(replies) if reply == NOT_APPENDED]
            again = self._run([pack(*calls[at], leased=False) for at in missed])
            for at, reply in zip(missed, again, strict=True):
                replies[at] = reply
        return self._codes(calls, replies)

    def _codes(
        self,
        calls: Sequence[tuple[ClusterKey, Sequence[bytes]]],
        replies: list[int | redis.ResponseError],
    ) -> list[int | redis.ResponseError]:
        """Return `LEASED` or `ENQUEUE` or 2 in place of each reply; note the packet counts."""
        counts = self._continuity.counts
        for at, reply in enumerate(replies):
            if isinstance(reply, int):
                counts[calls[at][0]] = reply >> 2
                replies[at] = reply & 3
        self._leased = replies[-1] == LEASED
        return replies

    def _run(self, commands: list[bytes]) -> list[int | redis.ResponseError]:
        replies = self._stored(commands)
        for at, reply in enumerate(replies):
            if isinstance(reply, redis.ResponseError) and is_bad_data(reply):
                with connect(self._settings) as client:
                    wrong = wrong_types(client, self._commands.names)
                if wrong:
                    error = replies[at] = WrongTypeError(wrong[0])
                    error.__cause__ = reply
        return replies

    def _stored(self, commands: list[bytes]) -> list[int | redis.ResponseError]:
        if self._replicas is None:
            return self._channel.run_each(self._script, commands)
        *replies, got = self._channel.run_each(self._script, commands, self._replicas.command)
        if isinstance(got, redis.ResponseError):
            raise got
        self._replicas.got = got
        return replies
