"""Metrics of the whole system, from Redis: every scheduler process serves them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from clusterer.errors import StateUnavailable
from clusterer.jobs.fleet import Fleet
from clusterer.membership import Condition, Node, State
from clusterer.membership.views import all_nodes
from clusterer.runtime import forks
from clusterer.services.context import Context
from clusterer.services.metrics.series import (
    ALL_SENDERS,
    MOST_PAIRS,
    MOST_PATHS,
    MOST_WHOLE,
    NODE,
    PAIR,
    node_labels,
)
from clusterer.services.metrics.state_changes import Changes
from clusterer.services.status import fleet as fleets
from clusterer.services.status import links, node_list, traffic
from clusterer.services.status.node_list import NodeList, SenderBacklog
from clusterer.services.status.paths import BrokenPath
from clusterer.services.status.totals import ToNode
from clusterer.services.status.traffic import Traffic
from clusterer.store import translated


class Highest:
    """The highest values seen. Safe to share between threads.

    When a connection breaks, the delivery worker offers the packets behind the break again. The
    sums of skipped and lost packets go back until the worker skips or loses these packets a second
    time. Prometheus would take a lower sum for a counter that restarted at 0, and the whole sum
    for an increase.
    """

    def __init__(self) -> None:
        self._values: Mapping[Hashable, int] = {}
        self._lock = forks.lock()

    def of(self, values: Mapping[Hashable, int]) -> Mapping[Hashable, int]:
        """Return for each name its highest value so far; drop names that are not in ``values``."""
        with self._lock:
            before = self._values
            self._values = {name: max(now, before.get(name, now)) for name, now in values.items()}
            return self._values


_NODE = (*NODE, "url")

_COUNTERS = {
    "failed": ("send_failures", "Attempts to send that failed."),
    "skipped": ("skipped_packets", "Packets not sent because the path to the node was not up."),
    "lost": ("lost_packets", "Packets trimmed from the log before the delivery."),
}
"""Counters of `clusterer list` that are metrics as well: name and help text."""


class ClusterCollector(Collector):
    """Reads Redis at each scrape; without Redis its only metric is ``clusterer_redis_up`` 0."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._changes = Changes(context)
        self._highest = Highest()

    def collect(self) -> Iterator[Metric]:
        """Return everything as it is now."""
        up = GaugeMetricFamily("clusterer_redis_up", "Whether Redis answered this scrape.")
        try:
            found = self._read()
        except StateUnavailable:
            up.add_metric((), 0)
            yield up
            return
        up.add_metric((), 1)
        yield up
        yield from found

    def _read(self) -> list[Metric]:
        known = node_list.run(self._context, pairs=False)
        nodes = all_nodes(known.clusters)
        whole = len(nodes) <= MOST_WHOLE
        return [
            *_states(known, whole=whole),
            *_paths(known, whole=whole),
            self._changes.read(nodes if whole else ()),
            *_traffic(known, self._series(known), self._highest),
            *_backlog(node_list.sender_backlogs(known)),
            *_fleet(fleets.read(self._context)),
            *self._links(),
        ]

    def _links(self) -> Iterator[Metric]:
        """Return the links of instances in 3.x clusters; nothing without such a cluster."""
        clusters = self._context.settings.dialect3
        if not clusters:
            return
        up = GaugeMetricFamily(
            "clusterer_link_up",
            "Whether a node of an OpenSIPS 3.x cluster answers the pings of an instance.",
            labels=("cluster", "receiver", "machine_id"),
        )
        for link in links.run(self._context):
            if link.cluster_id in clusters:
                labels = map(str, (link.cluster_id, link.instance, link.machine_id))
                up.add_metric([*labels], link.record.state == "up")
        yield up

    def _series(self, known: NodeList) -> Sequence[Traffic | ToNode]:
        """Return the items with series: each pair or, beyond `MOST_PAIRS`, the sums per node."""
        if sum(item.senders for item in known.sums.to_nodes) > MOST_PAIRS:
            return known.sums.to_nodes
        with translated(self._context.settings, "read the senders' statistics"):
            return traffic.read(self._context, known.clusters, known.now)


def _states(known: NodeList, *, whole: bool) -> Iterator[Metric]:
    states = GaugeMetricFamily(
        "clusterer_node_state", "1 for the present state of a node.", labels=(*_NODE, "state")
    )
    tries = GaugeMetricFamily(
        "clusterer_node_failed_attempts", "Failed attempts so far (no_tries).", labels=_NODE
    )
    for node in all_nodes(known.clusters):
        labels = (*node_labels(node), node.url)
        if whole or node.no_tries:
            tries.add_metric(labels, node.no_tries)
        for condition in Condition:
            states.add_metric((*labels, condition.value), node.condition is condition)
    yield states
    yield tries


def _paths(known: NodeList, *, whole: bool) -> Iterator[Metric]:
    """Count the senders that do not reach a node, and name some of them while the node is up."""
    counts = GaugeMetricFamily(
        "clusterer_broken_paths", "Senders whose path to a node is not up.", labels=_NODE
    )
    each = GaugeMetricFamily(
        "clusterer_path_broken",
        "1 for a path that is not up, to a node that is up.",
        labels=PAIR,
    )
    to: dict[Node, list[BrokenPath]] = {node: [] for node in all_nodes(known.clusters)}
    for item in known.paths:
        to[item.node].append(item)
    for node, found in to.items():
        labels = node_labels(node)
        if whole or found:
            counts.add_metric((*labels, node.url), len(found))
        for item in found[:MOST_PATHS] if node.state is State.UP else ():
            each.add_metric((str(item.sender), *labels), 1)
    yield from (counts, each)


def _traffic(
    known: NodeList, items: Sequence[Traffic | ToNode], highest: Highest
) -> Iterator[Metric]:
    destinations = {node_labels(node): node.destination for node in all_nodes(known.clusters)}
    flows = [((_sender(flow), *node_labels(flow)), flow) for flow in items]
    # A node that is added again, or moves, has another generation: its counters begin at 0.
    values = highest.of(
        {
            (labels[0], destinations[labels[1:]], name): getattr(flow, name)
            for labels, flow in flows
            for name in _COUNTERS
        }
    )
    counters = {
        name: CounterMetricFamily(f"clusterer_{full}", text, labels=PAIR)
        for name, (full, text) in _COUNTERS.items()
    }
    backlog = GaugeMetricFamily(
        "clusterer_backlog_packets", "Packets that a node has not received yet.", labels=PAIR
    )
    for labels, flow in flows:
        for name, counter in counters.items():
            counter.add_metric(labels, values[labels[0], destinations[labels[1:]], name])
        if flow.backlog is not None:
            backlog.add_metric(labels, flow.backlog)
    return iter((*counters.values(), backlog))


def _sender(flow: Traffic | ToNode) -> str:
    return str(flow.sender) if isinstance(flow, Traffic) else ALL_SENDERS


def _backlog(found: Iterable[SenderBacklog]) -> Iterator[Metric]:
    age = GaugeMetricFamily(
        "clusterer_backlog_oldest_age_seconds",
        "Age of a sender's oldest packet that waits for a node that is up.",
        labels=("sender",),
    )
    for item in found:
        age.add_metric((str(item.sender),), item.oldest_s)
    yield age


def _fleet(fleet: Fleet) -> Iterator[Metric]:
    jobs = GaugeMetricFamily("clusterer_queue_jobs", "Jobs that wait.", labels=("queue",))
    failed = GaugeMetricFamily(
        "clusterer_queue_failed_jobs", "Jobs in RQ's registry of failed jobs.", labels=("queue",)
    )
    suspended = fleet.suspension is not None
    workers = GaugeMetricFamily(
        "clusterer_queue_workers", "Workers that take a queue's jobs.", labels=("queue",)
    )
    for queue in fleet.queues:
        jobs.add_metric((queue.name,), queue.jobs)
        failed.add_metric((queue.name,), queue.failed)
        workers.add_metric((queue.name,), 0 if suspended else len(queue.workers))
    yield from (jobs, failed, workers)
    yield GaugeMetricFamily(
        "clusterer_rq_suspended",
        "1 after `rq suspend`: no worker starts a job.",
        value=float(suspended),
    )
    yield GaugeMetricFamily("clusterer_schedulers", "Schedulers alive.", value=fleet.schedulers)
    if fleet.last_tick_s is not None:
        yield GaugeMetricFamily(
            "clusterer_scheduler_last_tick_age_seconds",
            "Time since a scheduler last enqueued periodic jobs.",
            value=fleet.last_tick_s,
        )
