"""The HTTP endpoint of one process."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.registry import Collector

from clusterer.services.metrics.http import start_server
from clusterer.services.metrics.log import LogCollector
from clusterer.services.metrics.loops import LoopCollector, Surviving
from clusterer.settings import Settings

log = logging.getLogger(__name__)


@contextmanager
def serving(
    settings: Settings, collectors: Callable[[], Iterable[Collector]]
) -> Iterator[CollectorRegistry | None]:
    """Serve metrics during a ``with`` block, if `metrics_port` is set; ``collectors`` makes ours.

    A port that cannot be had is logged and nothing else: deliveries matter more than numbers.
    """
    if not settings.metrics_port:
        yield None
        return
    registry = registry_of((LogCollector(), *collectors()))
    where = settings.metrics_address, settings.metrics_port
    try:
        server, thread = start_server(*where, registry)
    except OSError as error:
        log.error("no metrics: cannot listen on %s port %d: %s", *where, error.strerror or error)
        yield registry
        return
    log.info("metrics on http://%s:%d/metrics", *where)
    try:
        yield registry
    finally:
        with suppress(OSError):
            server.shutdown()
            server.server_close()
        thread.join(1)


def registry_of(collectors: Iterable[Collector]) -> CollectorRegistry:
    """Return a registry of ``collectors`` and of what prometheus-client knows of the process."""
    registry = CollectorRegistry(auto_describe=False)
    for made in (ProcessCollector, PlatformCollector, GCCollector):
        made(registry=registry)
    for collector in (*collectors, LoopCollector()):
        registry.register(Surviving(collector))
    return registry
