"""Names of the Redis keys beside RQ's own. docs/redis-keys/ shows each with a redis-cli line.

rq-scheduler's keys are shared by every application on the same Redis database, and its schedulers
move away whatever is due there. So the schedule of the periodic jobs and its lock are others.
"""

from __future__ import annotations

SCHEDULED = "clusterer:scheduled-jobs"
"""Sorted set: periodic job → when it is due, UNIX seconds."""
REFUSED = "clusterer:refused-jobs"
"""Sorted set: what stood in `SCHEDULED` and is no periodic job, with its time."""
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


def misfit(key: str) -> str:
    """Any type: what stood in a key of RQ's, but is of the wrong type there."""
    return f"clusterer:junk-key:{key}"
