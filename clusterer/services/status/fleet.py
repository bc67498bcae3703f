"""The fleet around the instances: its delivery queues are the store's, its processes are RQ's."""

from __future__ import annotations

from dataclasses import replace

from clusterer.jobs import Suspension
from clusterer.jobs.fleet import Fleet
from clusterer.jobs.fleet_reader import read_fleet
from clusterer.services.context import Context
from clusterer.store import translated
from clusterer.store.backlog import queue_names


def read(context: Context) -> Fleet:
    """Return the fleet in Redis; takes a few round trips and a scan. Raises `StateUnavailable`."""
    settings = context.settings
    with translated(settings, "look at workers and scheduler"):
        names, unreadable = queue_names(context.redis)
        if settings.server_id or not names:
            names.add(settings.delivery_queue)  # an instance's own, known or not
        fleet = read_fleet(context.redis, names)
        return replace(fleet, unreadable=(*unreadable, *fleet.unreadable))


def suspension(context: Context) -> Suspension | None:
    """Return the suspension of RQ's workers, None without one. Raises `StateUnavailable`."""
    with translated(context.settings, "look whether RQ is suspended"):
        return Suspension.read(context.redis)
