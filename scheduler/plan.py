"""The periodic jobs, and the plan of the due ones: pure, times in seconds since the epoch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from clusterer.jobs.keys import (
    CHECK_TIMEOUTS,
    HISTORY,
    HISTORY_ID,
    PROBE,
    PROBE_ID,
    SWEEP,
    SWEEP_ID,
    SYNC,
    SYNC_ID,
    TIMEOUTS_ID,
)
from clusterer.settings import DATABASE_QUEUE, MAINTENANCE_QUEUE


@dataclass(frozen=True, slots=True)
class PeriodicJob:
    """A job that the scheduler enqueues every ``interval_s`` s; RQ ends it after ``timeout_s``."""

    job_id: str
    function: str
    queue: str
    timeout_s: int
    interval_s: float = 1


_ALWAYS = (
    PeriodicJob(PROBE_ID, PROBE, MAINTENANCE_QUEUE, timeout_s=10),
    PeriodicJob(TIMEOUTS_ID, CHECK_TIMEOUTS, MAINTENANCE_QUEUE, timeout_s=10),
    PeriodicJob(SWEEP_ID, SWEEP, MAINTENANCE_QUEUE, timeout_s=10),
)
_PERSISTENT = PeriodicJob(SYNC_ID, SYNC, DATABASE_QUEUE, timeout_s=30)


def periodic_jobs(*, persistent_mode: bool, history_interval: float = 0) -> tuple[PeriodicJob, ...]:
    """Return the periodic jobs.

    The sync job is among them only in persistent mode, the history job only with an interval (in
    seconds; not shorter than the interval of the other jobs).
    """
    found = (*_ALWAYS, _PERSISTENT) if persistent_mode else _ALWAYS
    if not history_interval:
        return found
    every_s = max(1.0, history_interval)
    history = PeriodicJob(HISTORY_ID, HISTORY, MAINTENANCE_QUEUE, timeout_s=10, interval_s=every_s)
    return (*found, history)


@dataclass(frozen=True, slots=True)
class Plan:
    """The result of one look at the schedule."""

    due: tuple[tuple[PeriodicJob, float], ...]
    """Jobs to enqueue now, each with its next due time."""
    next_at: float
    """Time of the next look at the schedule."""


def make_plan(jobs: Iterable[PeriodicJob], times: Mapping[str, float | None], now: float) -> Plan:
    """Return the plan at ``now``; ``times``: job id → due time (None: not scheduled).

    A job keeps its rhythm. A job that is late by more than its interval starts a new rhythm, and so
    does a job that is scheduled further ahead than its interval (the clock was set back).
    """
    due, waiting = [], []
    for job in jobs:
        at = times[job.job_id]
        if at is not None and now < at <= now + job.interval_s:
            waiting.append(at)
        else:
            due.append((job, _following(job, at, now)))
    return Plan(tuple(due), min([*waiting, *(again for _, again in due)]))


def _following(job: PeriodicJob, at: float | None, now: float) -> float:
    on_time = at is not None and now - job.interval_s < at <= now
    return (at if at is not None and on_time else now) + job.interval_s
