"""Metrics of any process: lost log lines, failed rounds of loops, skipped values.

A collector that fails never hides the metrics of the others.
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
    """Reads the counter of the log's stream."""

    def collect(self) -> Iterator[Metric]:
        """Yield the counter; 0 where stderr is no `LogStream`."""
        stream = sys.stderr
        lost = stream.lost_total if isinstance(stream, LogStream) else 0
        metric = CounterMetricFamily(
            "clusterer_log_lost_lines", "Log lines that the process could not write."
        )
        metric.add_metric((), lost)
        yield metric


class LoopCollector(Collector):
    """Counts failed rounds of the loops of this process, and bad values that they skipped."""

    def collect(self) -> Iterator[Metric]:
        """Return all metrics of this moment."""
        failed = CounterMetricFamily(
            "clusterer_loop_failures", "Rounds of a loop that failed.", labels=("loop",)
        )
        for loop, count in sorted(rounds.failures().items()):
            failed.add_metric((loop,), count)
        yield failed
        yield CounterMetricFamily(
            "clusterer_bad_values",
            "Bad values in Redis that this process skipped.",
            value=badvalues.seen(),
        )


class Surviving(Collector):
    """Returns the metrics of another collector; logs and counts its failures."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._rounds = rounds.Rounds("metrics")

    def collect(self) -> Iterable[Metric]:
        """Return the collector's metrics, none if the collector fails."""
        with self._rounds.guard():
            return list(self._collector.collect())
        return ()
