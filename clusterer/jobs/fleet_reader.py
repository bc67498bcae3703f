"""Reads the fleet, without RQ's classes: these would unpickle, and end at the first bad value."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import redis

from clusterer.jobs import keys
from clusterer.jobs.client import SUSPENDED, Suspension
from clusterer.jobs.fleet import Fleet, Foreign, QueueInfo, WorkerInfo, silent_s
from clusterer.jobs.junk import JunkReport, JunkStore
from clusterer.jobs.keys import EVERY_SECOND_IDS, OURS, PERIODIC_IDS, SCHEDULED
from clusterer.settings import DATABASE_QUEUE, MAINTENANCE_QUEUE

_WORKERS = "rq:workers"
_QUEUES = "rq:queues"
_QUEUE = "rq:queue:"
_FAILED = "rq:failed:"
_SHARED_SCHEDULED = "rq:scheduler:scheduled_jobs"


def read_fleet(client: redis.Redis, delivery: Iterable[str]) -> Fleet:
    """Return the fleet in Redis; takes a few round trips and a scan. ``delivery``: queues.

    Raises errors of redis-py.
    """
    return _Reader(client).read([*sorted(delivery), MAINTENANCE_QUEUE, DATABASE_QUEUE])


class _Reader:
    """Reads keys to which other programs can write as well; notes and skips bad values."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._unreadable: list[str] = []

    def read(self, names: Sequence[str]) -> Fleet:
        """Return the fleet; ``names``: the delivery queues, then the other two."""
        workers = self._workers()
        pipe = self._client.pipeline(transaction=False)
        pipe.time()
        pipe.zmscore(SCHEDULED, sorted(EVERY_SECOND_IDS))
        pipe.pttl(SUSPENDED)
        for name in names:
            pipe.llen(f"{_QUEUE}{name}")
            pipe.zcard(f"{_FAILED}{name}")
        (seconds, micros), times, suspended, *sizes = _replies(pipe)
        read = [f"{kind}{name}" for name in names for kind in (_QUEUE, _FAILED)]
        counts = [self._known(key, size, 0) for key, size in zip(read, sizes, strict=True)]
        times = self._known(SCHEDULED, times, [None] * len(EVERY_SECOND_IDS))
        queues = [
            _queue(name, jobs, failed, [worker for worker in workers if name in worker.queues])
            for name, jobs, failed in zip(names, counts[::2], counts[1::2], strict=True)
        ]
        return Fleet(
            now=seconds + micros / 1e6,
            delivery=tuple(queues[:-2]),
            maintenance=queues[-2],
            database=queues[-1],
            schedulers=_schedulers(self._client),
            schedule={
                i: at
                for i, at in zip(sorted(EVERY_SECOND_IDS), times, strict=True)
                if at is not None
            },
            suspension=Suspension.of(suspended),
            foreign=self._foreign(names, workers),
            junk=self._junk(names),
            unreadable=tuple(self._unreadable),
        )

    def _members(self, key: str) -> list[str]:
        """Return the members of a set that are text, sorted."""
        (reply,) = _replies(self._client.pipeline(transaction=False).smembers(key))
        found = []
        for member in self._known(key, reply, ()):
            text = _text(member)
            if text.isprintable() and "\ufffd" not in text:
                found.append(text)
            else:
                self._unreadable.append(f"member {member[:60]!r} of {key}")
        return sorted(found)

    def _known(self, key: str, reply: Any, otherwise: Any) -> Any:
        """Return ``reply``, or note that the key is of the wrong type."""
        if not isinstance(reply, redis.ResponseError):
            return reply
        self._unreadable.append(f"{key}, which is of the wrong type")
        return otherwise

    def _workers(self) -> list[WorkerInfo]:
        names = self._members(_WORKERS)
        pipe = self._client.pipeline(transaction=False)
        for name in names:
            pipe.hmget(name, "hostname", "pid", "queues", "state", OURS, "death")
            pipe.ttl(name)
        replies = _replies(pipe) if names else []
        found = [
            self._known(n, reply, [None] * 6) for n, reply in zip(names, replies[::2], strict=True)
        ]
        known = zip(names, found, replies[1::2], strict=True)
        return [_worker(name, values, ttl) for name, values, ttl in known if _lives(values, ttl)]

    def _foreign(self, names: Collection[str], workers: Iterable[WorkerInfo]) -> Foreign:
        ours = {*names, *(name for worker in workers if worker.ours for name in worker.queues)}
        queues = (key.removeprefix(_QUEUE) for key in self._members(_QUEUES))
        pipe = self._client.pipeline(transaction=False)
        pipe.zcard(_SHARED_SCHEDULED).zmscore(_SHARED_SCHEDULED, sorted(PERIODIC_IDS))
        total, former = _replies(pipe)
        scheduled = self._known(_SHARED_SCHEDULED, total, 0)
        if scheduled:
            scheduled -= sum(at is not None for at in former)
        return Foreign(
            tuple(name for name in queues if name not in ours),
            sum(not worker.ours and ours.isdisjoint(worker.queues) for worker in workers),
            scheduled,
        )

    def _junk(self, names: Iterable[str]) -> tuple[JunkReport, ...]:
        reports = (JunkStore(name, self._client).report() for name in names)
        return tuple(report for report in reports if report is not None)


def _replies(pipe: Any) -> list[Any]:
    """Return Redis's replies, with an error for each key of the wrong type; raise other errors."""
    replies: list[Any] = pipe.execute(raise_on_error=False)
    for reply in replies:
        if isinstance(reply, redis.RedisError) and not str(reply).startswith("WRONGTYPE"):
            raise reply
    return replies


def _lives(values: Iterable[bytes | None], ttl: int) -> bool:
    *_, queues, _state, _ours, death = values
    return queues is not None and death is None and ttl != 0


def _worker(key: str, values: Iterable[bytes | None], ttl: int) -> WorkerInfo:
    host, pid, queues, state, ours, _ = (_text(value or b"?") for value in values)
    return WorkerInfo(
        name=key.rpartition(":")[2],
        host=host,
        pid=pid,
        queues=tuple(queues.split(",")),
        busy=state == "busy",
        silent_s=silent_s(ttl),
        ours=ours != "?",
    )


def _queue(name: str, jobs: int, failed: int, workers: Collection[WorkerInfo]) -> QueueInfo:
    ours = tuple(worker for worker in workers if worker.ours)
    strangers = tuple(worker for worker in workers if not worker.ours)
    return QueueInfo(name, jobs, failed, ours, strangers)


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")


def _schedulers(client: Any) -> int:
    found = list(client.scan_iter(match=keys.scheduler("*"), count=1000))
    if not found:
        return 0
    pipe = client.pipeline(transaction=False)
    for key in found:
        pipe.hexists(key, "death")
    return sum(dead == 0 for dead in _replies(pipe))
