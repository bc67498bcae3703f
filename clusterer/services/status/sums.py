"""The traffic as sums by node and by sender: a reader's cost follows nodes and senders, not pairs.

Redis makes the sums. A pair of sender and node is read by itself only where sums cannot tell: if it
has a backlog, or if the sender has a bad value.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from operator import add
from time import monotonic

from clusterer.membership import Node, NodeKey, State
from clusterer.membership.views import all_nodes
from clusterer.services.context import Context
from clusterer.services.status import paths, totals, traffic
from clusterer.services.status.paths import BrokenPath, Reach
from clusterer.services.status.totals import FromSender, ToNode
from clusterer.services.status.traffic import Flow, Traffic
from clusterer.store import ClusterView, sender_hashes
from clusterer.store.traffic_sums import LAST, Counts, Destinations, SummedTraffic


@dataclass(frozen=True, slots=True)
class Waiting:
    """A pair of sender and node whose node does not have all packets of the sender."""

    sender: int
    node: Node
    backlog: int | None
    """Packets that the node has not received; None if their number is not known."""
    oldest_s: float | None
    """Age of the oldest of them; None if none waits, or if its age is not known."""


@dataclass(frozen=True, slots=True)
class Sums:
    """The traffic of all senders."""

    to_nodes: tuple[ToNode, ...] = ()
    """For each node with traffic, by cluster and machine_id."""
    from_senders: tuple[FromSender, ...] = ()
    """For each sender with traffic, by machine_id."""
    sent_by: Mapping[NodeKey, int] = field(default_factory=dict)
    """Packets that a sender sent in a cluster, by cluster and sender."""
    waiting: tuple[Waiting, ...] = ()
    """The pairs with a backlog."""
    reach: Mapping[NodeKey, Reach] = field(default_factory=dict)
    """How many live senders reach a node; nodes without a live sender are left out."""


def of_pairs(
    found: Sequence[Traffic], views: Sequence[ClusterView], broken: Sequence[BrokenPath]
) -> Sums:
    """Return the sums of pairs that were read."""
    nodes = {node.key: node for node in all_nodes(views)}
    senders: dict[NodeKey, set[int]] = defaultdict(set)
    sent_by: dict[NodeKey, int] = defaultdict(int)
    waiting = []
    for item in found:
        key = item.node_key
        senders[key].add(item.sender)
        sent_by[key[0], item.sender] += item.sent
        if item.backlog != 0:
            waiting.append(Waiting(item.sender, nodes[key], item.backlog, item.oldest_s))
    reach: dict[NodeKey, Reach] = {}
    for view in views:
        known = {i: senders[view.key, i] for i in view.nodes}
        reach |= {(view.key, i): r for i, r in paths.reach(view, known, broken).items()}
    to_nodes, from_senders = totals.by_node(found), totals.by_sender(found)
    return Sums(tuple(to_nodes), tuple(from_senders), sent_by, tuple(waiting), reach)


def read(
    context: Context,
    views: Sequence[ClusterView],
    broken: Sequence[BrokenPath],
    now: float,
    most: int = traffic.LOOKED_UP,
    *,
    until_s: float = inf,
    senders: Sequence[int] | None = None,
    kept: bool = True,
) -> Sums:
    """Return the traffic between all nodes of ``views``; ``broken``: the paths that are not up.

    ``most``: see `traffic.with_ages`; ``until_s``: monotonic time at which the read ends, with a
    `TimeoutError`; ``senders``: all senders, if the caller knows them; ``kept``: whether to take
    sums that Redis has kept. Raises errors of redis-py.
    """
    destinations = Destinations(views)
    if not destinations.distinct:
        return of_pairs(traffic.read(context, views, now), views, broken)
    reader = _Reader(views, broken, destinations)
    if senders is None:
        machine_ids = {machine_id for view in views for machine_id in view.nodes}
        senders = sender_hashes.senders(context.redis, machine_ids)
    unusable: list[int] = []
    for clusters, some in reader.by_life(senders).items():
        for found in destinations.sums(context.redis, some, kept=kept):
            if monotonic() > until_s:
                raise TimeoutError("reading the traffic took too long")
            reader.add(found, clusters)
            unusable += found.unusable
    reader.add_flows(traffic.flows_from(context, views, unusable))
    unsure = reader.unsure()
    paired = {(f.sender, f.node) for f in traffic.flows_from(context, views, unsure)}
    waiting = [
        Waiting(flow.sender, flow.node, backlog, oldest_s)
        for flow, (backlog, oldest_s) in zip(
            reader.behind, traffic.ages(context, reader.behind, now, most), strict=True
        )
        if backlog != 0
    ]
    return reader.sums(waiting, paired)


class _Reader:
    """Adds up what Redis has summed of the senders."""

    def __init__(
        self,
        views: Sequence[ClusterView],
        broken: Sequence[BrokenPath],
        destinations: Destinations,
    ) -> None:
        self._views = views
        self._nodes = destinations.nodes
        self._cluster_of = [c for c, view in enumerate(views) for _ in view.nodes]
        self._index = {node.key: d for d, node in enumerate(self._nodes)}
        self._to = [[0] * len(self._nodes) for _ in Counts._fields]
        self._live = [0] * len(self._nodes)
        """Number of live senders with traffic to each node."""
        self._by: dict[tuple[int, int], Counts] = {}
        """Counts of a sender in a cluster."""
        self.behind: list[Flow] = []
        """The pairs that may have a backlog."""
        self._failing: dict[int, set[int]] = defaultdict(set)
        """Index of a node → the senders that do not reach it."""
        for item in broken:
            if (d := self._index.get(item.node.key)) is not None:
                self._failing[d].add(item.sender)
        failing: dict[int, list[set[int]]] = defaultdict(list)
        for d, senders in self._failing.items():
            failing[self._cluster_of[d]].append(senders)
        self._alive = [paths.live_senders(view, failing[c]) for c, view in enumerate(views)]
        """The live senders of each cluster."""

    def by_life(self, senders: Iterable[int]) -> dict[frozenset[int], list[int]]:
        """Return the senders by the clusters in which they are live."""
        found: dict[frozenset[int], list[int]] = {}
        for sender in senders:
            live = frozenset(c for c, alive in enumerate(self._alive) if sender in alive)
            found.setdefault(live, []).append(sender)
        return found

    def add(self, found: SummedTraffic, live: Collection[int]) -> None:
        """Add the sums of senders that are live in the clusters ``live``."""
        self._to = [
            list(map(max if at == LAST else add, mine, more))
            for at, (mine, more) in enumerate(zip(self._to, found.to, strict=True))
        ]
        alive = [c in live for c in range(len(self._views))]
        self._live = [
            mine + more if alive[c] else mine
            for mine, more, c in zip(self._live, found.to[-1], self._cluster_of, strict=True)
        ]
        self._by |= {(sender, cluster): counts for sender, cluster, counts in found.by}
        self.behind += [
            Flow(pair.sender, self._nodes[pair.node], (0, 0, 0, 0), "", *pair[2:])
            for pair in found.behind
        ]

    def add_flows(self, flows: Iterable[Flow]) -> None:
        """Add pairs that Redis could not sum."""
        for flow in flows:
            d = self._index[flow.node.key]
            c, last = self._cluster_of[d], flow.last_delivered
            counts = Counts(*flow.counts, int(last) if last.isdecimal() else 0, 1)
            for at, column in enumerate(self._to):
                column[d] = max(column[d], counts[at]) if at == LAST else column[d] + counts[at]
            self._live[d] += flow.sender in self._alive[c]
            self._by[flow.sender, c] = _sum((self._by.get((flow.sender, c), _NONE), counts))
            if flow.backlog != 0:
                self.behind.append(flow)

    def unsure(self) -> list[int]:
        """Return the senders with a broken path whose traffic to that node is not known."""
        return sorted(
            {
                sender
                for d, senders in self._failing.items()
                for sender in senders
                if not self._has_all(sender, self._cluster_of[d])
            }
        )

    def _has_all(self, sender: int, cluster: int) -> bool:
        """Whether a sender has traffic to all nodes of a cluster but its own."""
        nodes, counts = self._views[cluster].nodes, self._by.get((sender, cluster), _NONE)
        return counts.pairs == len(nodes) - (sender in nodes)

    def sums(self, waiting: Sequence[Waiting], paired: Collection[tuple[int, Node]]) -> Sums:
        """Return everything; ``paired``: pairs with traffic of the senders that are `unsure`."""
        to: dict[NodeKey, list[Waiting]] = defaultdict(list)
        by: dict[int, list[Waiting]] = defaultdict(list)
        for item in waiting:
            to[item.node.key].append(item)
            by[item.sender].append(item)
        of_sender: dict[int, list[Counts]] = defaultdict(list)
        for (sender, _), counts in self._by.items():
            of_sender[sender].append(counts)
        to_nodes = []
        for node, *values in zip(self._nodes, *self._to, strict=True):
            counts = Counts(*values)
            if counts.pairs:
                fields = _fields(counts, to.get(node.key, ()))
                place = node.cluster_id, node.protocol, node.machine_id
                to_nodes.append(ToNode(*fields, *place, senders=counts.pairs))
        from_senders = []
        for sender, some in sorted(of_sender.items()):
            counts = _sum(some)
            fields = _fields(counts, by.get(sender, ()))
            from_senders.append(FromSender(*fields, sender, nodes=counts.pairs))
        return Sums(
            to_nodes=tuple(to_nodes),
            from_senders=tuple(from_senders),
            sent_by={(self._views[c].key, s): counts.sent for (s, c), counts in self._by.items()},
            waiting=tuple(waiting),
            reach=dict(self._reach(paired)),
        )

    def _reach(self, paired: Collection[tuple[int, Node]]) -> Iterator[tuple[NodeKey, Reach]]:
        """Yield what `paths.reach` returns, without the pairs."""
        for d, node in enumerate(self._nodes):
            failing = self._failing.get(d, set()) - {node.machine_id}
            alive, cluster = self._alive[self._cluster_of[d]], self._cluster_of[d]
            known = self._live[d] + sum(
                not (s in alive and (self._has_all(s, cluster) or (s, node) in paired))
                for s in failing
            )
            if known and node.state is not State.DOWN:
                reached = known - len(failing) if node.state is State.UP else 0
                yield node.key, Reach(reached, known)


_NONE = Counts(0, 0, 0, 0, 0, 0)


def _sum(some: Sequence[Counts]) -> Counts:
    columns = zip(*some, strict=True)
    return Counts(*(max(c) if at == LAST else sum(c) for at, c in enumerate(columns)))


def _fields(
    counts: Counts, waiting: Sequence[Waiting]
) -> tuple[int, int, int, int, int | None, float | None, str]:
    """Return the fields that `ToNode` and `FromSender` begin with."""
    last = str(counts.last_delivered or "")
    return *counts[:4], totals.backlog(waiting), totals.oldest_s(waiting), last
