"""Names in Redis: job functions, fixed ids of jobs, keys beside those of RQ.

docs/redis-keys/ shows each key with a redis-cli line. rq-scheduler's keys are shared by every
application on the same Redis database, and its schedulers move away whatever is due there. So the
schedule of the periodic jobs and its lock have keys of their own.
"""

from __future__ import annotations

from clusterer.settings import MAINTENANCE_QUEUE

DELIVER = "workers.deliver"
PROBE = "workers.probe"
CHECK_TIMEOUTS = "workers.check_timeouts"
SWEEP = "workers.sweep"
SYNC = "workers.sync"
HISTORY = "workers.record_history"
REACH = "workers.reach"
JOB_FUNCTIONS = frozenset({DELIVER, PROBE, CHECK_TIMEOUTS, SWEEP, SYNC, HISTORY, REACH})
"""The only functions a worker imports and runs because a job names them."""

PROBE_ID = "clusterer-probe"
TIMEOUTS_ID = "clusterer-timeouts"
SWEEP_ID = "clusterer-sweep"
SYNC_ID = "clusterer-sync"
"""The periodic job that only persistent mode has."""
HISTORY_ID = "clusterer-history"
EVERY_SECOND_IDS = frozenset({PROBE_ID, TIMEOUTS_ID, SWEEP_ID, SYNC_ID})
"""The periodic jobs that are due every second: they tell whether a scheduler works."""
PERIODIC_IDS = EVERY_SECOND_IDS | {HISTORY_ID}

OURS = "clusterer"
"""Field of a worker's hash that tells this project's workers from those of other applications."""

MAINTENANCE_WORKERS = f"rq:workers:{MAINTENANCE_QUEUE}"
"""Set of the keys of the maintenance workers; RQ writes it."""

SCHEDULED = "clusterer:scheduled-jobs"
"""Sorted set: periodic job → when it is due, UNIX seconds."""
REFUSED = "clusterer:refused-jobs"
"""Sorted set: former members of `SCHEDULED` that are no periodic jobs, with their times."""
LOCK = "clusterer:scheduler-lock"
"""String with a TTL: token of the active scheduler."""


def scheduler(name: str) -> str:
    """Hash with a TTL: one scheduler process, active or not."""
    return f"clusterer:scheduler:{name}"


def junk(queue: str) -> str:
    """Capped list: the newest junk jobs of a queue."""
    return f"clusterer:junk:{queue}"


def junk_totals(queue: str) -> str:
    """Hash: how many junk jobs a queue had, since when, and when the last."""
    return f"clusterer:junk-totals:{queue}"


def moved_aside(key: str) -> str:
    """Any type: the former value of a key of RQ or of the schedule that had the wrong type."""
    return f"clusterer:junk-key:{key}"
