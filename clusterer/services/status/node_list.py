"""All nodes of all clusters, with the traffic to each node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from clusterer.errors import InvalidArgument
from clusterer.membership import Node, State
from clusterer.membership.paths import Path, as_seen
from clusterer.services.context import Context
from clusterer.services.status import paths, sums, traffic
from clusterer.services.status.paths import BrokenPath, Reach
from clusterer.services.status.sums import Sums, Waiting
from clusterer.services.status.totals import ToNode
from clusterer.services.status.traffic import Traffic
from clusterer.store import ClusterView, translated


@dataclass(frozen=True, slots=True)
class NodeList:
    """The data that `clusterer list` shows, at one moment."""

    now: float
    """Redis TIME of the moment, UNIX seconds."""
    server_id: int
    """The own machine_id, 0 if none is configured."""
    clusters: tuple[ClusterView, ...]
    traffic: tuple[Traffic, ...]
    """One item for each pair of sender and node with traffic; none if only sums were read."""
    paths: tuple[BrokenPath, ...] = ()
    """The paths that are not up."""
    seen_by: int = 0
    """The sender as which the nodes are shown; 0: their verdicts are shown."""
    sums: Sums = field(default_factory=Sums)
    """The traffic by node and by sender."""

    def seen(self, node: Node) -> Node:
        """Return the node as it is shown: with its verdict, or as `seen_by` sees it."""
        return as_seen(node, self._own.get(node.destination), int(self.now * 1000))

    def reach(self, view: ClusterView) -> Mapping[int, Reach]:
        """Return how many live senders reach each node of a cluster that has any."""
        known = ((i, self.sums.reach.get((view.key, i))) for i in view.nodes)
        return {i: reach for i, reach in known if reach is not None}

    @property
    def _own(self) -> Mapping[str, Path]:
        if not self.seen_by:
            return {}
        return {
            item.node.destination: item.path for item in self.paths if item.sender == self.seen_by
        }


@dataclass(frozen=True, slots=True)
class SenderBacklog:
    """Packets of one sender that are not delivered yet."""

    sender: int
    packets: int
    """Packets for the node that is furthest behind, among the nodes that are up and that the sender
    reaches."""
    oldest_s: float
    """Age of the oldest of these packets, by Redis's clock; 0 without one."""
    waiting: int
    """Packets for the node that is furthest behind, among the other nodes (replay)."""


def run(context: Context, seen_by: int = 0, *, pairs: bool = True, kept: bool = True) -> NodeList:
    """Read all clusters, their senders' statistics and paths. Raises `StateUnavailable`.

    ``seen_by``: the sender as which the nodes are shown; `InvalidArgument` if it has no node.
    ``pairs``: whether to read each pair of sender and node. Without them the list has the same
    sums, for which a million pairs take about a second of Redis. ``kept``: whether it may have sums
    that Redis has kept; they show no value that an operator changed by hand.
    """
    store = context.nodes
    views = tuple(store.views().values())
    if seen_by and not any(seen_by in view.nodes for view in views):
        raise InvalidArgument(f"no cluster has a node {seen_by}")
    records, now_ms = paths.read(context)
    now = store.now()
    broken = tuple(paths.broken(views, records, now_ms))
    found: tuple[Traffic, ...] = ()
    with translated(context.settings, "read the senders' statistics"):
        if pairs:
            found = tuple(traffic.read(context, views, now))
            summed = sums.of_pairs(found, views, broken)
        else:
            summed = sums.read(context, views, broken, now, kept=kept)
    return NodeList(now, context.settings.server_id, views, found, broken, seen_by, summed)


def as_json(known: NodeList, *, pairs: bool = False) -> dict[str, Any]:
    """Return the list for JSON; names are those of the table and of Redis.

    ``traffic`` has an entry for each node to which packets were sent; with ``pairs``, for each
    sender and node. Both forms have the same figures and the same sums.
    """
    by_pair: Sequence[Traffic | ToNode] = known.traffic if pairs else known.sums.to_nodes
    return {
        "now": known.now,
        "server_id": known.server_id,
        "seen_by": known.seen_by or None,
        "clusters": [_cluster_as_json(known, view) for view in known.clusters],
        "traffic": [asdict(item) for item in by_pair],
        "senders": [asdict(item) for item in known.sums.from_senders],
    }


def _cluster_as_json(known: NodeList, view: ClusterView) -> dict[str, Any]:
    reach = known.reach(view)
    return {
        "cluster_id": view.key.cluster_id,
        "protocol": view.key.protocol,
        "version": view.version,
        "nodes": [
            _node_as_json(known, node, reach.get(node.machine_id)) for node in view.nodes.values()
        ],
    }


def _node_as_json(known: NodeList, node: Node, reach: Reach | None) -> dict[str, Any]:
    seen = known.seen(node)
    return asdict(seen) | {
        "state": int(seen.state),
        "condition": seen.condition.value,
        "verdict": node.condition.value,
        "reached_by": reach.reached if reach else None,
        "live_senders": reach.senders if reach else 0,
        "enabled_in_s": seen.enabled_in_s(known.now),
        "own": node.machine_id == known.server_id,
    }


def sender_backlogs(known: NodeList) -> list[SenderBacklog]:
    """Return the backlog of every sender in ``known``."""
    unreached = {(item.sender, item.node.destination) for item in known.paths}
    reached: dict[int, list[Waiting]] = {}
    others: dict[int, list[Waiting]] = {}
    for item in known.sums.waiting:
        up = item.node.state is State.UP and (item.sender, item.node.destination) not in unreached
        (reached if up else others).setdefault(item.sender, []).append(item)
    senders = [item.sender for item in known.sums.from_senders]
    return [_backlog_of(s, reached.get(s, ()), others.get(s, ())) for s in senders]


def _backlog_of(
    sender: int, reached: Sequence[Waiting], others: Sequence[Waiting]
) -> SenderBacklog:
    return SenderBacklog(
        sender,
        max((item.backlog or 0 for item in reached), default=0),
        max((item.oldest_s or 0.0 for item in reached), default=0.0),
        max((item.backlog or 0 for item in others), default=0),
    )
