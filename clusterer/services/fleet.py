"""The processes around the instances, as Redis knows them: workers per queue, the scheduler."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from clusterer.services.context import Context
from clusterer.settings import DATABASE_QUEUE, MAINTENANCE_QUEUE
from clusterer.store import keys, translated
from clusterer.store.encoding import as_text

# RQ's and rq-scheduler's own names. Read as they are: their classes would unpickle.
_WORKERS = "rq:workers"
_SCHEDULERS = "rq:scheduler_instance:*"
SCHEDULE = "rq:scheduler:scheduled_jobs"
PROBERS = f"rq:workers:{MAINTENANCE_QUEUE}"

KEY_TTL_S = 75
"""What a worker gives its key whenever it shows a sign of life."""

SILENT_S = 30
"""Silence of a worker from which on it counts as gone."""

INTERVAL_S = 1.0
"""Of every periodic job."""

LATE_S = 5.0
"""Age of the last tick from which on no scheduler works."""


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """One RQ worker that Redis still remembers."""

    name: str
    host: str
    pid: str
    queues: tuple[str, ...]
    busy: bool
    silent_s: int
    """Seconds since its last sign of life, at least; RQ forgets it after `KEY_TTL_S`."""

    @property
    def place(self) -> str:
        return f"{self.host} pid {self.pid}"


@dataclass(frozen=True, slots=True)
class QueueInfo:
    """One RQ queue."""

    name: str
    jobs: int
    """Waiting; started ones do not count."""
    failed: int
    """In the registry of failed jobs."""
    workers: tuple[WorkerInfo, ...]


@dataclass(frozen=True, slots=True)
class Fleet:
    """All of them at one moment."""

    now: float
    """Redis TIME, UNIX seconds."""
    delivery: tuple[QueueInfo, ...]
    maintenance: QueueInfo
    database: QueueInfo
    schedulers: int
    """Scheduler processes alive; one of them is active."""
    schedule: Mapping[str, float]
    """Periodic job → when it is due next, UNIX seconds."""

    @property
    def queues(self) -> tuple[QueueInfo, ...]:
        """All queues."""
        return (*self.delivery, self.maintenance, self.database)

    @property
    def last_tick_s(self) -> float | None:
        """Seconds since periodic jobs were last enqueued; None if none ever were."""
        return last_tick_s(self.schedule.values(), self.now)


def last_tick_s(due: Collection[float], now: float) -> float | None:
    """Return the seconds since jobs that are ``due`` (UNIX seconds) were last enqueued."""
    return max(0.0, now - (max(due) - INTERVAL_S)) if due else None


def silent_s(key_ttl_s: int) -> int:
    """Return for how long, at least, a worker has been silent whose key lives that long still."""
    return max(0, KEY_TTL_S - key_ttl_s) if key_ttl_s > 0 else 0


def read(context: Context) -> Fleet:
    """Return what Redis knows; three round trips and a scan. Raises `StateUnavailable`."""
    client = context.redis
    with translated(context.settings, "look at workers and scheduler"):
        delivery = {as_text(name) for name in client.smembers(keys.QUEUES)}
        if context.settings.server_id or not delivery:
            delivery.add(context.settings.delivery_queue)  # an instance's own, known or not
        names = [*sorted(delivery), MAINTENANCE_QUEUE, DATABASE_QUEUE]
        workers = _workers(client)
        pipe = client.pipeline(transaction=False)
        pipe.time()
        pipe.zrange(SCHEDULE, 0, 99, withscores=True)
        for name in names:
            pipe.llen(f"rq:queue:{name}")
            pipe.zcard(f"rq:failed:{name}")
        (seconds, micros), schedule, *sizes = pipe.execute()
        schedulers = _schedulers(client)
    queues = [
        QueueInfo(name, jobs, failed, tuple(w for w in workers if name in w.queues))
        for name, jobs, failed in zip(names, sizes[::2], sizes[1::2], strict=True)
    ]
    return Fleet(
        now=seconds + micros / 1e6,
        delivery=tuple(queues[:-2]),
        maintenance=queues[-2],
        database=queues[-1],
        schedulers=schedulers,
        schedule={as_text(job_id): at for job_id, at in schedule},
    )


def _workers(client: Any) -> list[WorkerInfo]:
    names = sorted(as_text(key) for key in client.smembers(_WORKERS))
    pipe = client.pipeline(transaction=False)
    for name in names:
        pipe.hmget(name, "hostname", "pid", "queues", "state", "death")
        pipe.ttl(name)
    replies = pipe.execute() if names else []
    found = zip(names, replies[::2], replies[1::2], strict=True)
    return [_worker(name, values, ttl) for name, values, ttl in found if _lives(values, ttl)]


def _lives(values: Iterable[bytes | None], ttl: int) -> bool:
    *_, queues, _state, death = values
    return queues is not None and death is None and ttl != 0


def _worker(key: str, values: Iterable[bytes | None], ttl: int) -> WorkerInfo:
    host, pid, queues, state, _ = (as_text(value or b"?") for value in values)
    return WorkerInfo(
        name=key.rpartition(":")[2],
        host=host,
        pid=pid,
        queues=tuple(queues.split(",")),
        busy=state == "busy",
        silent_s=silent_s(ttl),
    )


def _schedulers(client: Any) -> int:
    found = list(client.scan_iter(match=_SCHEDULERS, count=1000))
    if not found:
        return 0
    pipe = client.pipeline(transaction=False)
    for key in found:
        pipe.hexists(key, "death")
    return sum(not dead for dead in pipe.execute())
