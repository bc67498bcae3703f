"""Metrics of jobs: of the scheduler that enqueues them, and of the workers that run them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.registry import Collector

_LATENESS_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class TickMetrics:
    """Metrics of the scheduler; `late` observes each periodic job that it enqueues."""

    def __init__(self, active: Callable[[], bool]) -> None:
        self._active = Gauge(
            "clusterer_scheduler_active", "1 in the active scheduler, else 0.", registry=None
        )
        self._active.set_function(lambda: float(active()))
        self._lateness = Histogram(
            "clusterer_scheduler_tick_lateness_seconds",
            "Delay between the due time of a periodic job and its enqueuing.",
            buckets=_LATENESS_S,
            registry=None,
        )

    def late(self, seconds: float) -> None:
        """Note a periodic job that was enqueued ``seconds`` after it was due."""
        self._lateness.observe(seconds)

    def collectors(self) -> Iterable[Collector]:
        """Return the collectors to serve."""
        return self._active, self._lateness


_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 62, 90)
"""A delivery job runs while there is traffic, at most for a minute and its hand-over: the buckets
around a minute are narrow, so that a quantile has a small error. Other jobs take ms."""


REFUSED = "refused"
"""Label ``function`` of junk jobs, which no worker runs."""


class JobMetrics:
    """Metrics of a worker's jobs; `observe` observes each job after its end."""

    def __init__(self, functions: Iterable[str] = ()) -> None:
        """Take the names of the job functions: each failure counter has to begin at 0."""
        self._durations = Histogram(
            "clusterer_job_duration_seconds",
            "Duration of jobs.",
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
        """Count a job that has ended."""
        self._durations.labels(function).observe(duration_s)
        self._failures.labels(function).inc(0 if succeeded else 1)

    def refused(self, count: int) -> None:
        """Count ``count`` junk jobs as failures."""
        self._failures.labels(REFUSED).inc(count)

    def collectors(self) -> Iterable[Collector]:
        """Return the collectors to serve."""
        return self._durations, self._failures
