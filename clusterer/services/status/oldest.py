"""How long the oldest packet in each sender's log has been waiting for a node that is up."""

from __future__ import annotations

from dataclasses import dataclass

from clusterer.membership import Node, State
from clusterer.services.status.listing import Listing
from clusterer.services.status.traffic import Traffic


@dataclass(frozen=True, slots=True)
class SenderBacklog:
    """What one machine has sent and nobody has delivered yet."""

    sender: int
    packets: int
    """For the node that is furthest back; nodes that are not up do not count."""
    oldest_s: float
    """Age of the oldest of them, by Redis's clock; 0 if there is none."""
    waiting: int
    """The same as ``packets`` for nodes that are not up (replay)."""


def run(listing: Listing) -> list[SenderBacklog]:
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
    return [_of(sender, found) for sender, found in flows.items()]


def _of(sender: int, flows: list[tuple[Traffic, Node]]) -> SenderBacklog:
    up = [item for item, node in flows if node.state is State.UP]
    waiting = [item.backlog or 0 for item, node in flows if node.state is not State.UP]
    return SenderBacklog(
        sender,
        max((item.backlog or 0 for item in up), default=0),
        max((item.oldest_s or 0.0 for item in up), default=0.0),
        max(waiting, default=0),
    )
