"""The page Overview: faults first, then one line per cluster, and the processes around them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from operator import attrgetter
from typing import Any

from clusterer.console.console import Console
from clusterer.console.feed import Moment, Processes
from clusterer.console.page import Page, Parameters
from clusterer.membership import Condition
from clusterer.services.doctor import Level
from clusterer.services.live import Alarm, ClusterRows, Severity
from clusterer.services.status.fleet import SILENT_S, QueueInfo
from clusterer.services.status.totals import added
from clusterer.store import ClusterKey

MOST_ALARMS = 50
"""Alarms that the page shows."""

OLD_S = 1.0
"""Least age of a backlog that is shown."""

_LEVELS = {Level.ERROR: Severity.ERROR, Level.WARN: Severity.WARNING}


def load(console: Console, parameters: Parameters) -> dict[str, Any]:
    """Return the alarms, a line per cluster, and the processes."""
    moment, processes = console.feed.now(), console.feed.processes()
    found = sorted(
        [*_about_processes(moment, processes), *moment.alarms()],
        key=attrgetter("severity"),
        reverse=True,
    )
    return {
        "alarms": [alarm_as_json(alarm) for alarm in found[:MOST_ALARMS]],
        "alarm_count": len(found),
        "worst": found[0].severity.word if found else "",
        "clusters": [
            cluster_as_json(cluster, moment.offered_per_s.get(cluster.key), moment.now)
            for cluster in moment.clusters
        ],
        **_processes_as_json(processes),
    }


def _about_processes(moment: Moment, processes: Processes) -> Iterator[Alarm]:
    """Yield the alarms that the health check finds, and that states are not updated."""
    if moment.snapshot.stalled:
        text = f"states are not updated: {moment.snapshot.stalled}"
        yield Alarm(Severity.ERROR, text, advice="open the page Doctor")
    if not processes.redis.primary:
        text = f"Redis at {processes.redis.url} is a replica, which takes no writes"
        yield Alarm(Severity.ERROR, text, advice="point redis_url at the primary server")
    for finding in processes.findings:
        if finding.level in _LEVELS:
            text = f"{finding.check}: {finding.text}"
            yield Alarm(_LEVELS[finding.level], text, advice=finding.advice)


def alarm_as_json(alarm: Alarm) -> dict[str, Any]:
    """Return an alarm for JSON; times are UNIX seconds."""
    key = alarm.key
    place = place_as_json(key) if key else {"cluster_id": None, "protocol": None}
    found = asdict(alarm) | place | {"severity": alarm.severity.word}
    del found["key"]
    return found


def cluster_as_json(
    cluster: ClusterRows, offered_per_s: float | None, now: float
) -> dict[str, Any]:
    """Return the sums of a cluster for JSON; ``since`` of the oldest packet is UNIX seconds."""
    ages = [row.oldest_s for row in cluster.rows if row.oldest_s is not None]
    return {
        **place_as_json(cluster.key),
        "nodes": len(cluster.rows),
        **{condition.value: cluster.count(condition) for condition in Condition},
        "partly_reached": sum(row.partly_reached for row in cluster.rows),
        "out_per_s": rounded(offered_per_s),
        "in_per_s": rounded(_sum(row.in_per_s for row in cluster.rows)),
        "backlog": added(row.backlog for row in cluster.rows),
        "oldest_since": oldest_since(max(ages, default=None), now),
    }


def place_as_json(key: ClusterKey) -> dict[str, Any]:
    """Return the cluster for JSON."""
    return {"cluster_id": key.cluster_id, "protocol": key.protocol}


def oldest_since(oldest_s: float | None, now: float) -> int | None:
    """Return when the oldest packet was sent, UNIX seconds; None without one of a second or more.

    A younger packet is on its way, and does not wait.
    """
    return None if oldest_s is None or oldest_s < OLD_S else round(now - oldest_s)


def rounded(value: float | None) -> float | None:
    """Return a rate with one decimal."""
    return None if value is None else round(value, 1)


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _processes_as_json(processes: Processes) -> dict[str, Any]:
    fleet, server = processes.fleet, processes.redis
    queues = [_queue_as_json("delivery", queue) for queue in fleet.delivery]
    queues.append(_queue_as_json("maintenance", fleet.maintenance))
    queues.append(_queue_as_json("database", fleet.database))
    found = asdict(server)
    found["role"] = "primary" if found.pop("primary") else "replica"
    return {
        "schedulers": fleet.schedulers,
        "queues": queues,
        "redis": found,
    }


def _queue_as_json(kind: str, queue: QueueInfo) -> dict[str, Any]:
    alive = [worker for worker in queue.workers if worker.silent_s < SILENT_S]
    return {
        "kind": kind,
        "name": queue.name,
        "workers": len(alive),
        "hosts": sorted({worker.host for worker in alive})[:10],
        "jobs": queue.jobs,
        "failed": queue.failed,
    }


PAGE = Page("overview", "/overview", "Overview", load, "overview.html")
