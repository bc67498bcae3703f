"""Takes junk jobs out of one queue, many at a time, so that good jobs do not wait behind them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import cast

import redis
from rq.job import Job as RqJob

from clusterer.jobs.junk import JunkEntry, JunkStore
from clusterer.jobs.keys import PERIODIC_IDS, REACH
from clusterer.jobs.readable import JunkJob, MissingJob, require_hash, require_id, require_ours

FILTER_S = 1.0
"""Longest time that a worker takes junk out, before it looks for jobs again."""
_AT_ONCE = 100
_LOOKED_AT = 1000
"""Jobs of a queue among which a repeated id is looked for."""
_REPEATED = "its id is in the queue once more"

_MOST_WAITING = 10
"""Jobs of a queue from which on those that repeat others are taken out."""
_MOST_ALIKE = {REACH: 10}
"""Jobs of a function that may wait, elsewhere 1: each ``clusterer doctor`` awaits its own."""
_PERIODIC = frozenset(job_id.encode() for job_id in PERIODIC_IDS)


Restore = Callable[[str, dict[bytes, bytes]], RqJob]
"""Makes a job of an id and a hash that were found good; whatever it raises makes them junk."""


class JunkFilter:
    """Tells good jobs of one queue from junk, and takes the junk out. For one thread."""

    def __init__(self, queue: str, connection: redis.Redis, restore: Restore) -> None:
        self.junk, self.latest = 0, ""
        """Junk jobs that this process took out; id and fault of the latest."""
        self._queue = queue
        self._connection = connection
        self._restore = restore
        self._store = JunkStore(queue, connection)

    def accept(self, job_id: bytes, waiting: str, popped: str) -> RqJob | None:
        """Return the job that was moved from the list ``waiting`` to ``popped``; None if junk.

        Junk leaves both lists, also what waits next: for `FILTER_S` at most. Of many jobs that call
        the same function, one does the work of all that wait: those are junk as well.
        """
        (found,) = self._judged([job_id])
        if not isinstance(found, JunkEntry):
            again, count = self._look(waiting, job_id)
            # The scheduler may have enqueued a periodic job between the move and this look.
            if again <= (job_id in _PERIODIC):
                if count > _MOST_WAITING:
                    self._take_out_repeats(waiting)
                return found
            found = JunkEntry(job_id, job_id, _REPEATED)
        self._discard(popped, [found])
        self.filter_list(waiting, time.monotonic() + FILTER_S)
        return None

    def _look(self, waiting: str, job_id: bytes) -> tuple[int, int]:
        """Return how often the id is in the list, at most 2, and how long the list is."""
        words = ("LPOS", waiting, job_id, "COUNT", 2, "MAXLEN", _LOOKED_AT)
        with self._connection.pipeline(transaction=False) as pipe:
            pipe.execute_command(*words)  # type: ignore[no-untyped-call]  # lpos() takes no bytes
            pipe.llen(waiting)
            again, count = pipe.execute()
        return len(again), count

    def filter_list(self, key: str, until: float, *, everything: bool = False) -> None:
        """Take junk out of the list ``key``: up to the next good job, or ``everything``."""
        start = 0
        while time.monotonic() < until:
            members = self._members(key, start)
            junk = list(self._junk_of(members))
            start += len(members) - self._discard(key, junk)
            if not members or (len(junk) < len(members) and not everything):
                break

    def _take_out_repeats(self, key: str) -> None:
        """Take the jobs out of the list ``key`` that call what enough others before them call."""
        start, until = 0, time.monotonic() + FILTER_S
        waiting: Counter[str] = Counter()
        while time.monotonic() < until and (members := self._members(key, start)):
            repeats = list(self._repeats_of(members, waiting))
            start += len(members) - self._discard(key, repeats)

    def _repeats_of(self, members: Sequence[bytes], waiting: Counter[str]) -> Iterator[JunkEntry]:
        """Yield the repeats among ``members``, and count in ``waiting`` what each function has."""
        for member, found in zip(members, self._judged(members), strict=True):
            if isinstance(found, JunkEntry) or member in _PERIODIC:
                continue
            function = found.func_name or ""
            waiting[function] += 1
            if waiting[function] > _MOST_ALIKE.get(function, 1):
                yield JunkEntry(member, member, f"it repeats {function}", own=True)

    def _members(self, key: str, start: int) -> list[bytes]:
        found = self._connection.lrange(key, start, start + _AT_ONCE - 1)
        return cast(list[bytes], found)  # RQ's clients never decode

    def filter_started(self, key: str, now: float, until: float) -> None:
        """Take junk out of the registry ``key`` of started jobs, as far as they ended by ``now``.

        Jobs whose hash is gone belong to workers that were killed: they leave it uncounted.
        """
        start = 0
        while time.monotonic() < until:
            ended = self._connection.zrangebyscore(key, "-inf", now, start, _AT_ONCE)
            members = cast(list[bytes], ended)
            if not members:
                break
            found = self._judged([member.partition(b":")[0] for member in members])
            junk = [
                replace(entry, member=member)
                for member, entry in zip(members, found, strict=True)
                if isinstance(entry, JunkEntry)
            ]
            gone = [entry.member for entry in junk if entry.missing]
            removed = self._connection.zrem(key, *gone) if gone else 0
            removed += self._discard(key, [entry for entry in junk if not entry.missing])
            start += len(members) - removed

    def _junk_of(self, members: Sequence[bytes]) -> Iterator[JunkEntry]:
        """Yield the junk among ``members``; of an id that repeats, the last is none."""
        left = Counter(members)
        for member, found in zip(members, self._judged(members), strict=True):
            left[member] -= 1
            if isinstance(found, JunkEntry):
                yield found
            elif left[member]:
                yield JunkEntry(member, member, _REPEATED)

    def _judged(self, job_ids: Sequence[bytes]) -> list[RqJob | JunkEntry]:
        """Read jobs; return each, or why it is junk. One round trip, however many there are."""
        replies = self._store.read(job_ids)
        return [self._judge(*pair) for pair in zip(job_ids, replies, strict=True)]

    def _judge(self, job_id: bytes, reply: Sequence[bytes]) -> RqJob | JunkEntry:
        own = False
        try:
            name = require_id(job_id)
            fields = require_hash(reply)
            own = fields.get(b"origin") == self._queue.encode()
            require_ours(fields, self._queue)
            return self._restored(name, fields)
        except JunkJob as junk:
            missing = isinstance(junk, MissingJob)
            return JunkEntry(job_id, job_id, str(junk), own=own, missing=missing)

    def _restored(self, name: str, fields: dict[bytes, bytes]) -> RqJob:
        try:
            return self._restore(name, fields)
        except Exception as error:
            raise JunkJob(f"RQ cannot read it: {type(error).__name__}") from error

    def _discard(self, source: str, entries: Sequence[JunkEntry]) -> int:
        moved = self._store.discard(source, entries) if entries else 0
        if moved:
            self.junk, self.latest = self.junk + moved, entries[-1].line
        return moved
