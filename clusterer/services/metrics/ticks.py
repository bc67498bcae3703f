"""Metrics of a scheduler process: whether it is the active one, and how late its ticks are."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import Gauge, Histogram
from prometheus_client.registry import Collector

_BUCKETS_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class TickMetrics:
    """Observed once per periodic job that is enqueued."""

    def __init__(self, active: Callable[[], bool]) -> None:
        self._active = Gauge(
            "clusterer_scheduler_active", "1 in the scheduler that works.", registry=None
        )
        self._active.set_function(lambda: float(active()))
        self._lateness = Histogram(
            "clusterer_scheduler_tick_lateness_seconds",
            "How much later than planned a periodic job was enqueued.",
            buckets=_BUCKETS_S,
            registry=None,
        )

    def late(self, seconds: float) -> None:
        """Note a periodic job that was enqueued ``seconds`` after it was due."""
        self._lateness.observe(seconds)

    def collectors(self) -> Iterable[Collector]:
        """What to serve."""
        return self._active, self._lateness
