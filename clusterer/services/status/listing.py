"""All nodes of all clusters, with the traffic to each node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from clusterer.membership import Node, State
from clusterer.services.context import Context
from clusterer.services.status import totals, traffic
from clusterer.services.status.traffic import Traffic
from clusterer.store import ClusterView, translated


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

    def enabled_in_s(self, node: Node) -> int | None:
        """Seconds until a temporarily disabled node is enabled again; None for all others."""
        return node.enabled_in_s(self.now)


@dataclass(frozen=True, slots=True)
class SenderBacklog:
    """Packets of one sender that are not delivered yet."""

    sender: int
    packets: int
    """Packets for the node that is furthest behind, among the nodes that are up."""
    oldest_s: float
    """Age of the oldest of these packets, by Redis's clock; 0 without one."""
    waiting: int
    """Packets for the node that is furthest behind, among the nodes that are not up (replay)."""


def run(context: Context) -> Listing:
    """Read all clusters and their senders' statistics. Raises `StateUnavailable`."""
    store = context.nodes
    views = tuple(store.views().values())
    now = store.now()
    with translated(context.settings, "read the senders' statistics"):
        found = traffic.read(context, views, now)
    return Listing(now, context.settings.server_id, views, tuple(found))


def as_json(listing: Listing, *, pairs: bool = False) -> dict[str, Any]:
    """Return the listing for JSON; names are those of the table and of Redis.

    ``traffic`` has an entry for each node to which packets were sent; with ``pairs``, for each
    sender and node. Both forms have the same figures and the same sums.
    """
    by_pair: Sequence[Traffic | totals.ToNode] = listing.traffic
    return {
        "now": listing.now,
        "server_id": listing.server_id,
        "clusters": [
            {
                "cluster_id": view.key.cluster_id,
                "protocol": view.key.protocol,
                "version": view.version,
                "nodes": [_node_as_json(listing, node) for node in view.nodes.values()],
            }
            for view in listing.clusters
        ],
        "traffic": [
            asdict(item) for item in (by_pair if pairs else totals.by_node(listing.traffic))
        ],
        "senders": [asdict(item) for item in totals.by_sender(listing.traffic)],
    }


def _node_as_json(listing: Listing, node: Node) -> dict[str, Any]:
    return asdict(node) | {
        "state": int(node.state),
        "condition": node.condition.value,
        "enabled_in_s": listing.enabled_in_s(node),
        "own": node.machine_id == listing.server_id,
    }


def sender_backlogs(listing: Listing) -> list[SenderBacklog]:
    """Return the backlog of every sender in ``listing``."""
    nodes = {
        (view.key.cluster_id, view.key.protocol, node.machine_id): node
        for view in listing.clusters
        for node in view.nodes.values()
    }
    flows: dict[int, list[tuple[Traffic, Node]]] = {}
    for item in listing.traffic:
        node = nodes[item.cluster_id, item.protocol, item.machine_id]
        flows.setdefault(item.sender, []).append((item, node))
    return [_backlog_of(sender, found) for sender, found in flows.items()]


def _backlog_of(sender: int, flows: list[tuple[Traffic, Node]]) -> SenderBacklog:
    up = [item for item, node in flows if node.state is State.UP]
    waiting = [item.backlog or 0 for item, node in flows if node.state is not State.UP]
    return SenderBacklog(
        sender,
        max((item.backlog or 0 for item in up), default=0),
        max((item.oldest_s or 0.0 for item in up), default=0.0),
        max(waiting, default=0),
    )
