"""The processes around the instances, as Redis knows them: workers per queue, the scheduler."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import redis

from clusterer.jobs import OURS, SUSPENDED, JunkReport, JunkStore, Suspension
from clusterer.jobs import keys as job_keys
from clusterer.jobs.keys import EVERY_SECOND_IDS, PERIODIC_IDS
from clusterer.services.context import Context
from clusterer.settings import DATABASE_QUEUE, MAINTENANCE_QUEUE
from clusterer.store import keys, translated

# RQ's own names. Read without RQ's classes, which would unpickle, and end at the first bad value.
_WORKERS = "rq:workers"
_QUEUES = "rq:queues"
_QUEUE = "rq:queue:"
SCHEDULE = job_keys.SCHEDULED
_SHARED_SCHEDULED = "rq:scheduler:scheduled_jobs"
PROBERS = f"rq:workers:{MAINTENANCE_QUEUE}"

KEY_TTL_S = 75
"""TTL that a worker sets on its key with each heartbeat."""

SILENT_S = 30
"""Time without a heartbeat after which a worker counts as gone."""

INTERVAL_S = 1.0
"""Interval of the periodic jobs in `EVERY_SECOND_IDS`."""

LATE_S = 5.0
"""Age of the last tick from which on no scheduler works."""


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """One RQ worker with a key in Redis."""

    name: str
    host: str
    pid: str
    queues: tuple[str, ...]
    busy: bool
    silent_s: int
    """Least number of seconds since the last heartbeat; the key expires after `KEY_TTL_S`."""
    ours: bool = True
    """Whether the worker's key has the mark of this project's workers."""

    @property
    def place(self) -> str:
        return f"{self.host} pid {self.pid}"


@dataclass(frozen=True, slots=True)
class QueueInfo:
    """One RQ queue."""

    name: str
    jobs: int
    """Waiting jobs, without started ones."""
    failed: int
    """Jobs in the registry of failed jobs."""
    workers: tuple[WorkerInfo, ...]
    """Workers of this project."""
    strangers: tuple[WorkerInfo, ...] = ()
    """Other workers that take the queue's jobs, such as a plain ``rq worker``, and cannot run
    them."""


@dataclass(frozen=True, slots=True)
class Foreign:
    """Queues, workers and jobs of other applications in the same Redis database."""

    queues: tuple[str, ...] = ()
    workers: int = 0
    scheduled: int = 0
    """Jobs in rq-scheduler's own schedule."""

    def __bool__(self) -> bool:
        return bool(self.queues or self.workers or self.scheduled)


@dataclass(frozen=True, slots=True)
class Fleet:
    """All queues, workers and schedulers at one moment."""

    now: float
    """Redis TIME, UNIX seconds."""
    delivery: tuple[QueueInfo, ...]
    maintenance: QueueInfo
    database: QueueInfo
    schedulers: int
    """Scheduler processes alive; one of them is active."""
    schedule: Mapping[str, float]
    """Periodic job that is due every second → next due time, UNIX seconds."""
    suspension: Suspension | None = None
    """The suspension that keeps RQ's workers from starting jobs; None without one."""
    foreign: Foreign = Foreign()
    junk: tuple[JunkReport, ...] = ()
    """One report for each queue that had junk jobs lately."""
    unreadable: tuple[str, ...] = ()
    """RQ's keys and members with a type or value that RQ does not write, each described."""

    @property
    def queues(self) -> tuple[QueueInfo, ...]:
        """All queues."""
        return (*self.delivery, self.maintenance, self.database)

    @property
    def last_tick_s(self) -> float | None:
        """Seconds since a scheduler last enqueued periodic jobs; None if no scheduler ever did."""
        return last_tick_s(self.schedule.values(), self.now)


def last_tick_s(due: Collection[float], now: float) -> float | None:
    """Return the seconds since a scheduler enqueued the jobs with the next times ``due``."""
    return max(0.0, now - (max(due) - INTERVAL_S)) if due else None


def silent_s(key_ttl_s: int) -> int:
    """Return the least number of seconds since a worker's heartbeat, from the TTL of its key."""
    return max(0, KEY_TTL_S - key_ttl_s) if key_ttl_s > 0 else 0


def read(context: Context) -> Fleet:
    """Return the fleet in Redis; takes a few round trips and a scan. Raises `StateUnavailable`."""
    with translated(context.settings, "look at workers and scheduler"):
        return _Reader(context).read()


def suspension(context: Context) -> Suspension | None:
    """Return the suspension of RQ's workers, None without one. Raises `StateUnavailable`."""
    with translated(context.settings, "look whether RQ is suspended"):
        client: Any = context.redis
        return Suspension.of(client.pttl(SUSPENDED))


class _Reader:
    """Reads keys to which other programs can write as well; notes and skips bad values."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._client: Any = context.redis
        self._unreadable: list[str] = []

    def read(self) -> Fleet:
        names = [*sorted(self._delivery()), MAINTENANCE_QUEUE, DATABASE_QUEUE]
        workers = self._workers()
        pipe = self._client.pipeline(transaction=False)
        pipe.time()
        pipe.zmscore(SCHEDULE, sorted(EVERY_SECOND_IDS))
        pipe.pttl(SUSPENDED)
        for name in names:
            pipe.llen(f"{_QUEUE}{name}")
            pipe.zcard(f"rq:failed:{name}")
        (seconds, micros), times, suspended, *sizes = _replies(pipe)
        read = [f"{kind}{name}" for name in names for kind in (_QUEUE, "rq:failed:")]
        counts = [self._known(key, size, 0) for key, size in zip(read, sizes, strict=True)]
        times = self._known(SCHEDULE, times, [None] * len(EVERY_SECOND_IDS))
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

    def _delivery(self) -> set[str]:
        settings = self._context.settings
        delivery = set(self._members(keys.QUEUES))
        if settings.server_id or not delivery:
            delivery.add(settings.delivery_queue)  # an instance's own, known or not
        return delivery

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
        reports = (JunkStore(name, self._context.jobs_client).report() for name in names)
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
    found = list(client.scan_iter(match=job_keys.scheduler("*"), count=1000))
    if not found:
        return 0
    pipe = client.pipeline(transaction=False)
    for key in found:
        pipe.hexists(key, "death")
    return sum(dead == 0 for dead in _replies(pipe))
