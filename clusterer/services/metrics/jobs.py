"""Metrics of jobs: of the scheduler that enqueues them, and of the workers that run them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.registry import Collector

_LATENESS_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


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
            buckets=_LATENESS_S,
            registry=None,
        )

    def late(self, seconds: float) -> None:
        """Note a periodic job that was enqueued ``seconds`` after it was due."""
        self._lateness.observe(seconds)

    def collectors(self) -> Iterable[Collector]:
        """What to serve."""
        return self._active, self._lateness


_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 62, 90)
"""A delivery job runs as long as there is traffic, for a minute and its hand-over at most: with a
bucket that ends close by, a quantile is not far from that. Others take ms."""


REFUSED = "refused"
"""What a junk job is counted as, which no worker runs."""


class JobMetrics:
    """Observed once per job, after it."""

    def __init__(self, functions: Iterable[str] = ()) -> None:
        """Take the names of the job functions: each failure counter has to begin at 0."""
        self._durations = Histogram(
            "clusterer_job_duration_seconds",
            "How long jobs took.",
            ("function",),
            buckets=_BUCKETS_S,
            registry=None,
        )
        self._failures = Counter(
            "clusterer_job_failures", "Jobs that failed.", ("function",), registry=None
        )
        for function in (*functions, REFUSED):
            self._failures.labels(function)

    def observe(self, function: str, duration_s: float, *, succeeded: bool) -> None:
        """Note a job that has ended."""
        self._durations.labels(function).observe(duration_s)
        self._failures.labels(function).inc(0 if succeeded else 1)

    def refused(self, count: int) -> None:
        """Note ``count`` junk jobs: they fail without having run."""
        self._failures.labels(REFUSED).inc(count)

    def collectors(self) -> Iterable[Collector]:
        """What to serve."""
        return self._durations, self._failures
