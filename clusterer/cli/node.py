"""``clusterer node``: one instance."""

from __future__ import annotations

import logging
import threading
from contextlib import ExitStack
from time import monotonic
from typing import TYPE_CHECKING

import click

from clusterer.cli.options import RATELIMIT, with_settings
from clusterer.settings import Settings, require_server_id

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

    from clusterer.api import Clusterer
    from clusterer.modules.ratelimit import RateLimit
    from clusterer.runtime.stop import StopFlag

TURNS_WITHIN_S = 2.0
"""Longest turn of the listener's loop that counts as progress."""


@click.command()
@with_settings(log_level=logging.INFO, also=RATELIMIT)
def node(settings: Settings) -> None:
    """Run one instance until SIGTERM or Ctrl-C.

    The instance listens on the BIN address of its own row, which --server-id names. With
    --replicate-pipes-to or --accept-pipes-from the instance runs the ratelimit module:

    \b
        clusterer node --server-id 1 --replicate-pipes-to 1 --accept-pipes-from 1
    """  # noqa: D301 - \b is click's mark for lines to be kept as they are
    from clusterer.api import Clusterer
    from clusterer.runtime.descriptors import allow_connections
    from clusterer.runtime.stop import stop_on_signals
    from clusterer.services.metrics import serving

    require_server_id(settings)
    allow_connections(settings.max_connections)
    with ExitStack() as stack:
        stop = stack.enter_context(stop_on_signals())
        instance = Clusterer(settings=settings)
        stack.callback(instance.close)
        ratelimit = ratelimit_of(instance, settings)
        if ratelimit is not None:
            ratelimit.start()
            stack.callback(ratelimit.stop)
        stack.enter_context(serving(settings, lambda: collectors_of(instance)))
        serve_until(stop, instance)


def collectors_of(instance: Clusterer) -> list[Collector]:
    """Return the collectors of the instance's metrics."""
    from clusterer.services.metrics import InstanceCollector, PostCollector

    machine_id = instance.get_my_id()
    return [
        InstanceCollector(
            machine_id, instance.listener.counters, instance.snapshot_age_s, instance.offers
        ),
        PostCollector(machine_id, instance.sender),
    ]


def ratelimit_of(
    instance: Clusterer, settings: Settings, *, timer_interval: float = 10
) -> RateLimit | None:
    """Return the configured ratelimit module; None without its settings."""
    if not settings.replicate_pipes_to and not settings.accept_pipes_from:
        return None
    from clusterer.modules.ratelimit import RateLimit

    return RateLimit(
        instance,
        replicate_pipes_to=settings.replicate_pipes_to or None,
        accept_pipes_from=settings.accept_pipes_from or None,
        accept_pipes_timeout=settings.accept_pipes_timeout,
        auth_check=settings.repl_pipes_auth_check,
        timer_interval=timer_interval,
    )


def serve_until(stop: StopFlag, instance: Clusterer) -> None:
    """Serve in this thread until a signal sets the flag."""
    from clusterer.processes import Progress
    from clusterer.processes.progress import NOTE_EVERY_S

    def end() -> None:
        with Progress(instance.settings, f"node-{instance.get_my_id()}") as progress:
            while not stop.wait(NOTE_EVERY_S):
                if monotonic() - instance.listener.turned_at < TURNS_WITHIN_S:
                    progress.note()
        instance.stop()

    threading.Thread(target=end, name="clusterer-stop", daemon=True).start()
    instance.serve()
