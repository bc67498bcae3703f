"""A scheduler process, from its settings to its end."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial

from clusterer.endpoint import awaited
from clusterer.jobs import connect
from clusterer.processes import Progress
from clusterer.settings import Settings
from scheduler.plan import periodic_jobs
from scheduler.scheduler import Scheduler


def run(settings: Settings, *, burst: bool = False) -> int:
    """Enqueue the periodic jobs until SIGTERM or SIGINT (``burst``: look once); return 0.

    Several schedulers may run, also with Redis away; one of them is active. All schedulers should
    have the same settings: the settings of the active scheduler apply.
    """
    for name in ("rq.queue", "rq_scheduler.scheduler"):
        logging.getLogger(name).setLevel(logging.WARNING)
    jobs = periodic_jobs(
        persistent_mode=settings.persistent_mode, history_interval=settings.history_interval
    )
    scheduler = Scheduler(connect(settings), jobs)
    scheduler.awaited = partial(awaited, settings)
    with _metrics(settings, scheduler), Progress(settings, "scheduler") as progress:
        scheduler.progressed = progress.note
        scheduler.run(burst=burst)
    return 0


@contextmanager
def _metrics(settings: Settings, scheduler: Scheduler) -> Iterator[None]:
    if not settings.metrics_port:
        yield
        return
    from clusterer.services import Context  # noqa: PLC0415 - keeps the process light
    from clusterer.services.metrics import (  # noqa: PLC0415 - the same
        ClusterCollector,
        TickMetrics,
        serving,
    )

    ticks = TickMetrics(lambda: scheduler.active)
    scheduler.late = ticks.late
    with (
        closing(Context(settings)) as context,
        serving(settings, lambda: (*ticks.collectors(), ClusterCollector(context))),
    ):
        yield
