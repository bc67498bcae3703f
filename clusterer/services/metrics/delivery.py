"""Metrics of a delivery worker: packets and bytes sent to each node, and their latency."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, compress
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from clusterer.services.metrics.series import ALL_SENDERS, MOST_PAIRS, MOST_WHOLE, NODE, PAIR

if TYPE_CHECKING:
    from clusterer.delivery.meter import Flow, Meter

COARSE_MS = (100, 1000, 10_000)
"""Bounds of the latency's buckets if there are more than `MOST_WHOLE` nodes."""


class DeliveryCollector(Collector):
    """Reads the meter that the worker's engine keeps."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def collect(self) -> Iterator[Metric]:
        """Return all metrics of this moment."""
        labels = (*PAIR, "module")
        packets = CounterMetricFamily(
            "clusterer_sent_packets", "Packets written whole to a node's connection.", labels=labels
        )
        size = CounterMetricFamily(
            "clusterer_sent_bytes", "The bytes of these packets.", labels=labels
        )
        nodes: defaultdict[tuple[str, ...], list[Flow]] = defaultdict(list)
        sums: defaultdict[tuple[str, ...], list[int]] = defaultdict(lambda: [0, 0])
        flows = self._meter.flows.copy()
        for (sender, key, machine_id), flow in flows.items():
            node = (str(key.cluster_id), key.protocol, str(machine_id))
            who = str(sender) if len(flows) <= MOST_PAIRS else ALL_SENDERS
            for module, sent in flow.sent.copy().items():
                found = sums[who, *node, module]
                found[0] += sent.packets
                found[1] += sent.bytes
            nodes[node].append(flow)
        for place, (count, total) in sums.items():
            packets.add_metric(place, count)
            size.add_metric(place, total)
        yield from (packets, size)
        yield _latency(nodes)


def _latency(nodes: Mapping[tuple[str, ...], Sequence[Flow]]) -> Metric:
    """Return the latency per node, summed over senders: pairs would be too many time series.

    With many nodes the histogram has only the buckets of `COARSE_MS`.
    """
    from clusterer.delivery.meter import BOUNDS_MS  # noqa: PLC0415 - keeps other workers light

    latency = HistogramMetricFamily(
        "clusterer_delivery_latency_seconds",
        "Time from the append to the log until the whole write to the node's connection.",
        labels=NODE,
    )
    limits = [*(str(bound / 1000) for bound in BOUNDS_MS), "+Inf"]
    kept = [len(nodes) <= MOST_WHOLE or bound in COARSE_MS for bound in BOUNDS_MS] + [True]
    for labels, flows in nodes.items():
        counts = map(sum, zip(*(tuple(flow.buckets) for flow in flows), strict=True))
        buckets = list(compress(zip(limits, accumulate(counts), strict=True), kept))
        latency.add_metric(labels, buckets, sum(flow.sum_ms for flow in flows) / 1000)
    return latency
