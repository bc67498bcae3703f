"""Metric of a process's log: lines that could not be written."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from clusterer.runtime.streams import LogStream


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
