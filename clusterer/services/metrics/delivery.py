"""Metrics of a delivery worker: packets and bytes sent to each node, and their latency."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from clusterer.delivery.meter import Flow, Meter

FLOW = ("sender", "cluster", "protocol", "machine_id")
NODE = FLOW[1:]


class DeliveryCollector(Collector):
    """Reads the meter that the worker's engine keeps."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def describe(self) -> Iterable[Metric]:
        """Return nothing: the labels are not known at the start."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Return all metrics of this moment."""
        labels = (*FLOW, "module")
        packets = CounterMetricFamily(
            "clusterer_sent_packets", "Packets written whole to a node's connection.", labels=labels
        )
        size = CounterMetricFamily(
            "clusterer_sent_bytes", "The bytes of these packets.", labels=labels
        )
        nodes: defaultdict[tuple[str, ...], list[Flow]] = defaultdict(list)
        for (sender, key, machine_id), flow in self._meter.flows.copy().items():
            node = (str(key.cluster_id), key.protocol, str(machine_id))
            for module, sent in flow.sent.copy().items():
                packets.add_metric((str(sender), *node, module), sent.packets)
                size.add_metric((str(sender), *node, module), sent.bytes)
            nodes[node].append(flow)
        yield from (packets, size)
        yield _latency(nodes.items())


def _latency(nodes: Iterable[tuple[tuple[str, ...], list[Flow]]]) -> Metric:
    """Return the latency per node, summed over senders: pairs would be too many time series."""
    from clusterer.delivery.meter import BOUNDS_MS  # noqa: PLC0415 - keeps other workers light

    latency = HistogramMetricFamily(
        "clusterer_delivery_latency_seconds",
        "Time from the append to the log until the whole write to the node's connection.",
        labels=NODE,
    )
    limits = [*(str(bound / 1000) for bound in BOUNDS_MS), "+Inf"]
    for labels, flows in nodes:
        counts = map(sum, zip(*(tuple(flow.buckets) for flow in flows), strict=True))
        buckets = list(zip(limits, accumulate(counts), strict=True))
        latency.add_metric(labels, buckets, sum(flow.sum_ms for flow in flows) / 1000)
    return latency
