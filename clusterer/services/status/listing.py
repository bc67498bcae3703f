"""All nodes of all clusters, with the traffic to each node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from clusterer.errors import InvalidArgument
from clusterer.membership import Node, State
from clusterer.membership.paths import Path, as_seen
from clusterer.services.context import Context
from clusterer.services.status import paths, totals, traffic
from clusterer.services.status.paths import BrokenPath, Reach
from clusterer.services.status.traffic import Traffic
from clusterer.store import ClusterView, translated
from clusterer.store.destinations import field_of


@dataclass(frozen=True, slots=True)
class Listing:
    """The data that `clusterer list` shows, at one moment."""

    now: float
    """Redis TIME of the moment, UNIX seconds."""
    server_id: int
    """The own machine_id, 0 if none is configured."""
    clusters: tuple[ClusterView, ...]
    traffic: tuple[Traffic, ...]
    """One item for each pair of sender and node with traffic."""
    paths: tuple[BrokenPath, ...] = ()
    """The paths that are not up."""
    seen_by: int = 0
    """The sender as which the nodes are shown; 0: their verdicts are shown."""

    def seen(self, node: Node) -> Node:
        """Return the node as it is shown: with its verdict, or as `seen_by` sees it."""
        return as_seen(node, self._own.get(field_of(node)), int(self.now * 1000))

    def reach(self, view: ClusterView) -> Mapping[int, Reach]:
        """Return how many live senders reach each node of a cluster that has any."""
        senders: dict[int, set[int]] = {}
        for item in self.traffic:
            if (item.cluster_id, item.protocol) == view.key:
                senders.setdefault(item.machine_id, set()).add(item.sender)
        return paths.reach(view, senders, self.paths)

    @property
    def _own(self) -> Mapping[str, Path]:
        if not self.seen_by:
            return {}
        return {
            field_of(item.node): item.path for item in self.paths if item.sender == self.seen_by
        }

    def enabled_in_s(self, node: Node) -> int | None:
        """Seconds until a temporarily disabled node is enabled again; None for all others."""
        return node.enabled_in_s(self.now)


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


def run(context: Context, seen_by: int = 0) -> Listing:
    """Read all clusters, their senders' statistics and paths. Raises `StateUnavailable`.

    ``seen_by``: the sender as which the nodes are shown; `InvalidArgument` if it has no node.
    """
    store = context.nodes
    views = tuple(store.views().values())
    if seen_by and not any(seen_by in view.nodes for view in views):
        raise InvalidArgument(f"no cluster has a node {seen_by}")
    records, now_ms = paths.read(context)
    now = store.now()
    with translated(context.settings, "read the senders' statistics"):
        found = traffic.read(context, views, now)
    broken = paths.broken(views, records, now_ms)
    return Listing(now, context.settings.server_id, views, tuple(found), tuple(broken), seen_by)


def as_json(listing: Listing, *, pairs: bool = False) -> dict[str, Any]:
    """Return the listing for JSON; names are those of the table and of Redis.

    ``traffic`` has an entry for each node to which packets were sent; with ``pairs``, for each
    sender and node. Both forms have the same figures and the same sums.
    """
    by_pair: Sequence[Traffic | totals.ToNode] = listing.traffic
    return {
        "now": listing.now,
        "server_id": listing.server_id,
        "seen_by": listing.seen_by or None,
        "clusters": [_cluster_as_json(listing, view) for view in listing.clusters],
        "traffic": [
            asdict(item) for item in (by_pair if pairs else totals.by_node(listing.traffic))
        ],
        "senders": [asdict(item) for item in totals.by_sender(listing.traffic)],
    }


def _cluster_as_json(listing: Listing, view: ClusterView) -> dict[str, Any]:
    reach = listing.reach(view)
    return {
        "cluster_id": view.key.cluster_id,
        "protocol": view.key.protocol,
        "version": view.version,
        "nodes": [
            _node_as_json(listing, node, reach.get(node.machine_id)) for node in view.nodes.values()
        ],
    }


def _node_as_json(listing: Listing, node: Node, reach: Reach | None) -> dict[str, Any]:
    seen = listing.seen(node)
    return asdict(seen) | {
        "state": int(seen.state),
        "condition": seen.condition.value,
        "verdict": node.condition.value,
        "reached_by": reach.reached if reach else None,
        "live_senders": reach.senders if reach else 0,
        "enabled_in_s": listing.enabled_in_s(seen),
        "own": node.machine_id == listing.server_id,
    }


def sender_backlogs(listing: Listing) -> list[SenderBacklog]:
    """Return the backlog of every sender in ``listing``."""
    nodes = {
        (view.key.cluster_id, view.key.protocol, node.machine_id): node
        for view in listing.clusters
        for node in view.nodes.values()
    }
    unreached = {(item.sender, field_of(item.node)) for item in listing.paths}
    reached: dict[int, list[Traffic]] = {}
    others: dict[int, list[Traffic]] = {}
    for item in listing.traffic:
        node = nodes[item.cluster_id, item.protocol, item.machine_id]
        up = node.state is State.UP and (item.sender, field_of(node)) not in unreached
        (reached if up else others).setdefault(item.sender, []).append(item)
    senders = dict.fromkeys(item.sender for item in listing.traffic)
    return [_backlog_of(s, reached.get(s, ()), others.get(s, ())) for s in senders]


def _backlog_of(
    sender: int, reached: Sequence[Traffic], others: Sequence[Traffic]
) -> SenderBacklog:
    return SenderBacklog(
        sender,
        max((item.backlog or 0 for item in reached), default=0),
        max((item.oldest_s or 0.0 for item in reached), default=0.0),
        max((item.backlog or 0 for item in others), default=0),
    )
