"""A scheduler process, from its settings to its end."""

from __future__ import annotations

import logging

from clusterer.jobs import connect
from clusterer.settings import Settings
from scheduler.plan import periodic_jobs
from scheduler.scheduler import Scheduler


def run(settings: Settings, *, burst: bool = False) -> int:
    """Enqueue the periodic jobs until SIGTERM or SIGINT (``burst``: look once); return 0.

    Any number may run, also with Redis away; one of them is active. They should have the same
    settings: those of the active one count.
    """
    for name in ("rq.queue", "rq_scheduler.scheduler"):
        logging.getLogger(name).setLevel(logging.WARNING)
    jobs = periodic_jobs(persistent_mode=settings.persistent_mode)
    Scheduler(connect(settings), jobs).run(burst=burst)
    return 0
