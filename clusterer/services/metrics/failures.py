"""Metrics of any process: lost log lines, failed rounds of loops, skipped values.

A collector that fails never keeps the others from being shown.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from clusterer.runtime import rounds
from clusterer.runtime.streams import LogStream
from clusterer.store import badvalues


class LogCollector(Collector):
    """Reads what the stream under the log counts."""

    def collect(self) -> Iterator[Metric]:
        """Yield the counter; 0 where stderr is no `LogStream`."""
        stream = sys.stderr
        lost = stream.lost_total if isinstance(stream, LogStream) else 0
        metric = CounterMetricFamily(
            "clusterer_log_lost_lines", "Lines of the log that could not be written."
        )
        metric.add_metric((), lost)
        yield metric


class LoopCollector(Collector):
    """Failed rounds of the loops that run in this process, and values that they skipped."""

    def describe(self) -> Iterable[Metric]:
        """Nothing: labels come with time."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Return everything as it is now."""
        failed = CounterMetricFamily(
            "clusterer_loop_failures", "Rounds of a loop that failed.", labels=("loop",)
        )
        for loop, count in sorted(rounds.failures().items()):
            failed.add_metric((loop,), count)
        yield failed
        yield CounterMetricFamily(
            "clusterer_bad_values",
            "Times that a value in Redis could not be used and was skipped.",
            value=badvalues.seen(),
        )


class Surviving(Collector):
    """Shows what another collector has; one that fails is left out, logged and counted."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._rounds = rounds.Rounds("metrics")

    def describe(self) -> Iterable[Metric]:
        """Nothing: labels come with time."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Return everything as it is now, nothing if that fails."""
        with self._rounds.guard():
            return list(self._collector.collect())
        return ()
