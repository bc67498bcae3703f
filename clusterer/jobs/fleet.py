"""The processes around the instances, as Redis knows them: workers per queue, the scheduler."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from clusterer.jobs.client import Suspension
from clusterer.jobs.junk import JunkReport

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
