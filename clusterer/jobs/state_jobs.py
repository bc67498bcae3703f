"""Whether processes run the jobs that update the states of nodes: scheduler, maintenance worker."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from clusterer.jobs.client import SUSPENDED, Suspension
from clusterer.jobs.fleet import LATE_S, SILENT_S, last_tick_s, silent_s
from clusterer.jobs.keys import EVERY_SECOND_IDS, MAINTENANCE_WORKERS, OURS, SCHEDULED

_IDS = frozenset(name.encode() for name in EVERY_SECOND_IDS)


@dataclass(frozen=True, slots=True)
class StateJobsRead:
    """A read of the schedule and the workers; shares one round trip with other reads."""

    workers: tuple[bytes, ...] = ()
    """Keys of the maintenance workers that the read before this one found."""

    def commands(self) -> Iterator[tuple[Any, ...]]:
        """Yield the commands: the name of a method of redis-py's pipeline, its arguments."""
        yield "zrange", SCHEDULED, 0, -1, False, True
        yield "smembers", MAINTENANCE_WORKERS
        yield "pttl", SUSPENDED
        for worker in self.workers:
            yield "hget", worker, OURS
            yield "ttl", worker

    def of(self, replies: Iterator[Any], now: float) -> tuple[StateJobsRead, str]:
        """Return, from the replies to `commands`, the next read, and the reason why no process
        updates states, empty if one does.

        ``now``: Redis TIME, UNIX seconds.
        """
        schedule, found = next(replies), tuple(sorted(next(replies)))
        suspension = Suspension.of(next(replies))
        workers = [(next(replies), next(replies)) for _ in self.workers]
        due = [at for name, at in schedule if name in _IDS]
        return StateJobsRead(found), _stalled(due, now, suspension, workers)


def _stalled(
    due: Sequence[float],
    now: float,
    suspension: Suspension | None,
    workers: Iterable[tuple[bytes | None, int]],
) -> str:
    """Return the reason why no process updates states, empty if one does.

    ``workers``: the field `OURS` and the TTL of each maintenance worker.
    """
    if suspension is not None:
        return "RQ is suspended, no worker starts a job"
    late_s = last_tick_s(due, now)
    if late_s is None or late_s > LATE_S:
        return "no scheduler runs"
    lives = (ours is not None and silent_s(ttl) < SILENT_S for ours, ttl in workers)
    return "" if any(lives) else "no maintenance worker runs"
