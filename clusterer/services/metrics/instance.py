"""Metrics of one instance: its listener, the age of its snapshot, and the packets that it sends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from clusterer.listener.counters import CLOSED_FOR, Counters
from clusterer.membership.views import ClusterKey
from clusterer.store.labels import printable

if TYPE_CHECKING:
    from clusterer.sending import Sender

_RECEIVER = ("receiver",)

REASONS = (
    "no machine_id",
    "negative type",
    "unknown module",
    "unknown source",
    "silenced",
    "bad payload",
    "wrong dialect",
    "other destination",
)
"""Reasons with a time series from the start: a rate needs a zero to start from."""


class InstanceCollector(Collector):
    """Reads the counters of the instance's listener, and what the instance has offered."""

    def __init__(
        self,
        server_id: int,
        counters: Counters,
        snapshot_age_s: Callable[[], float],
        offered: Iterable[tuple[ClusterKey, str, int, int]],
    ) -> None:
        self._receiver = (str(server_id),)
        self._counters = counters
        counters.weigh = True
        self._offered = offered
        self._snapshot_age_s = snapshot_age_s

    def collect(self) -> Iterator[Metric]:
        """Return all metrics of this moment."""
        seen = self._counters
        for name, text, value in (
            ("packets", "Complete packets received, dropped ones included.", seen.packets),
            ("bytes", "Bytes received.", seen.bytes),
            (
                "wire_errors",
                "Connections closed because of bytes that are not BIN.",
                seen.wire_errors,
            ),
            ("callback_errors", "Packets on which a callback failed.", seen.callback_errors),
            ("module_timeouts", "Module timeouts of which callbacks were told.", seen.timeouts),
        ):
            yield self._counter(f"listener_{name}", text, (), {(): value})
        yield from self._connections()
        yield from self._packets()
        yield from self._offers()
        yield self._gauge(
            "listener_open_connections", "Inbound connections open.", seen.connections_open
        )
        yield self._gauge(
            "snapshot_age_seconds",
            "Time since the instance last confirmed that its snapshot is current.",
            self._snapshot_age_s(),
        )

    def _connections(self) -> Iterator[Metric]:
        seen = self._counters
        yield self._counter(
            "listener_connections",
            "Inbound connections by result: accepted, refused, or expired.",
            ("result",),
            {
                ("accepted",): seen.connections_accepted,
                ("refused",): seen.connections_refused,
                ("expired",): seen.connections_expired,
            },
        )
        closed = dict.fromkeys(CLOSED_FOR, 0) | seen.closed.copy()
        yield self._counter(
            "listener_closed_connections",
            "Inbound connections refused, or closed by the instance.",
            ("reason",),
            {(reason,): count for reason, count in closed.items()},
        )

    def _packets(self) -> Iterator[Metric]:
        """Yield the packets that were dropped, and those that were received."""
        drops = dict.fromkeys(REASONS, 0) | self._counters.drops.copy()
        dropped = {(reason,): count for reason, count in drops.items()}
        yield self._counter(
            "listener_dropped_packets", "Packets not passed to a callback.", ("reason",), dropped
        )
        tallies = self._counters.received.copy().items()
        received = {(printable(module), str(sender)): tally for (module, sender), tally in tallies}
        for unit, text in (
            ("packets", "Packets of registered modules from nodes of the table."),
            ("bytes", "The bytes of these packets."),
        ):
            values = {labels: getattr(tally, unit) for labels, tally in received.items()}
            yield self._counter(f"received_{unit}", text, ("module", "machine_id"), values)

    def _offers(self) -> Iterator[Metric]:
        labels = ("sender", "cluster", "protocol", "module")
        packets = CounterMetricFamily(
            "clusterer_offered_packets", "Packets that the instance sends.", labels=labels
        )
        size = CounterMetricFamily(
            "clusterer_offered_bytes", "The bytes of these packets.", labels=labels
        )
        for key, module, count, total in self._offered:
            place = (*self._receiver, str(key.cluster_id), key.protocol, module)
            packets.add_metric(place, count)
            size.add_metric(place, total)
        return iter((packets, size))

    def _counter(
        self, name: str, text: str, labels: tuple[str, ...], values: Mapping[Any, int]
    ) -> Metric:
        metric = CounterMetricFamily(f"clusterer_{name}", text, labels=(*_RECEIVER, *labels))
        for each, value in values.items():
            metric.add_metric((*self._receiver, *each), value)
        return metric

    def _gauge(self, name: str, text: str, value: float) -> Metric:
        metric = GaugeMetricFamily(f"clusterer_{name}", text, labels=_RECEIVER)
        metric.add_metric(self._receiver, value)
        return metric


class PostCollector(Collector):
    """Reads the counts of posted packets, and the bytes that wait."""

    def __init__(self, machine_id: int, sender: Sender) -> None:
        self._machine_id = str(machine_id)
        self._sender = sender

    def collect(self) -> Iterator[Metric]:
        """Return all metrics of this moment."""
        counts = self._sender.counts
        posted = CounterMetricFamily(
            "clusterer_posted_packets", "Packets that post took.", labels=("sender",)
        )
        posted.add_metric((self._machine_id,), counts.posted)
        yield posted
        unsent = CounterMetricFamily(
            "clusterer_unsent_posts",
            "Posted packets that were not sent, and those that post did not take.",
            labels=("sender", "reason"),
        )
        for reason in ("rejected", "dropped", "refused"):
            unsent.add_metric((self._machine_id, reason), getattr(counts, reason))
        yield unsent
        waiting = GaugeMetricFamily(
            "clusterer_post_buffer_bytes",
            "Bytes of posted packets that wait for Redis.",
            labels=("sender",),
        )
        waiting.add_metric((self._machine_id,), self._sender.waiting_bytes)
        yield waiting
