"""The checks for foreign data in RQ's keys: junk jobs, bad values, other applications."""

from __future__ import annotations

from collections.abc import Iterator

from clusterer.jobs import JunkReport, keys
from clusterer.services.doctor.finding import Finding, ok, stamp, warn
from clusterer.services.status.fleet import Fleet

CHECKS = ("junk jobs", "other applications")

_NAMED = 3


def check(fleet: Fleet) -> Iterator[Finding]:
    """Check the junk jobs that the processes found, and the bad values of this look."""
    yield from (_junk(report) for report in fleet.junk)
    for what in fleet.unreadable[:_NAMED]:
        yield warn(CHECKS[0], f"{what} and is left out", "delete it with redis-cli")
    if len(fleet.unreadable) > _NAMED:
        more = len(fleet.unreadable) - _NAMED
        yield warn(CHECKS[0], f"{more} more bad values", "first delete the values named above")
    if not (fleet.junk or fleet.unreadable):
        yield ok(CHECKS[0], "none")
    yield _shared(fleet)


def _junk(report: JunkReport) -> Finding:
    text = (
        f"{report.count} in {report.queue} since {stamp(report.since)}, not run; the latest "
        f"{stamp(report.last)}: {report.example}"
    )
    advice = (
        f"see `redis-cli LRANGE {keys.junk(report.queue)} 0 9`; configure the program that "
        "enqueues these jobs with another queue, or another Redis database"
    )
    return warn(CHECKS[0], text, advice)


def _shared(fleet: Fleet) -> Finding:
    foreign = fleet.foreign
    if not foreign:
        return ok(CHECKS[1], "no other application uses RQ in this Redis database")
    queues = ", ".join(foreign.queues[:_NAMED]) + (", …" if len(foreign.queues) > _NAMED else "")
    parts = [
        f"{len(foreign.queues)} queues ({queues})" if foreign.queues else "",
        f"{foreign.workers} workers" if foreign.workers else "",
        f"{foreign.scheduled} scheduled jobs" if foreign.scheduled else "",
    ]
    return warn(
        CHECKS[1],
        f"other applications use RQ in this Redis database: {', '.join(filter(None, parts))}",
        "give clusterer a database of its own: another number at the end of redis_url",
    )
