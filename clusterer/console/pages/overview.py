"""The page Overview: faults first, then one line per cluster, and the processes around them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from operator import attrgetter
from typing import Any

from clusterer.console.console import Console
from clusterer.console.feed import Moment, Processes
from clusterer.console.page import Page, Parameters
from clusterer.console.pages.as_json import alarm_as_json, cluster_as_json
from clusterer.jobs.fleet import SILENT_S, QueueInfo
from clusterer.services.doctor import Level
from clusterer.services.live import Alarm, Severity

MOST_ALARMS = 50
"""Alarms that the page shows."""

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
        "clusters": [cluster_as_json(cluster, moment) for cluster in moment.clusters],
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
