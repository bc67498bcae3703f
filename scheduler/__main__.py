"""``python -m scheduler``: one scheduler process; settings come from the environment."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial

from clusterer.endpoint import awaited
from clusterer.errors import ClustererError
from clusterer.jobs import connect
from clusterer.processes import Progress
from clusterer.runtime import logs, streams
from clusterer.settings import Settings
from clusterer.settings.sources import load_settings
from scheduler.plan import periodic_jobs
from scheduler.scheduler import Scheduler


def main() -> int:
    """Parse the command line and run the scheduler; returns the exit code."""
    streams.prepare()
    parser = argparse.ArgumentParser(prog="python -m scheduler", description=__doc__)
    parser.add_argument("--burst", action="store_true", help="enqueue the due jobs, then end")
    options = parser.parse_args()
    try:
        warnings: list[str] = []
        settings = load_settings(warn=warnings.append)
        logs.configure(settings, "scheduler")
        logs.warn(warnings)
        _run(settings, burst=options.burst)
    except ClustererError as error:
        sys.stderr.write(f"scheduler: {error}\n")
        return 1
    return 0


def _run(settings: Settings, *, burst: bool) -> None:
    """Enqueue the periodic jobs until SIGTERM or SIGINT (``burst``: look once).

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


if __name__ == "__main__":
    sys.exit(main())
