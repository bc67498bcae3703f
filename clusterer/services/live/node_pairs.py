"""The pairs of one node: its traffic with each other node, and when each instance last saw it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from clusterer.membership import Node
from clusterer.services.context import Context
from clusterer.services.live.last_seen import LastSeen, by_node
from clusterer.services.live.node_rows import Row
from clusterer.services.live.snapshot import LOOKED_UP, Snapshot
from clusterer.services.status import traffic
from clusterer.services.status.traffic import Traffic
from clusterer.store import last_seen, translated


@dataclass(frozen=True, slots=True)
class NodePairs:
    """What a snapshot does not have of a node."""

    received: tuple[Traffic, ...]
    """Traffic of each sender to the node."""
    sent: tuple[Traffic, ...]
    """Traffic of the node to each node of its cluster."""
    last_seen: tuple[LastSeen, ...]
    """One item for each module of each instance that listens now, by module and receiver."""


def read(context: Context, snapshot: Snapshot, node: Node) -> NodePairs:
    """Return the pairs of a node. Raises `StateUnavailable`.

    ``snapshot``: tells the senders, the instances that listen, and the nodes of the cluster.
    """
    key, machine_id = node.key
    views = [view for view in snapshot.clusters if view.key == key]
    own = [sender for sender in snapshot.senders if sender == machine_id]
    watches = [watch for watch in snapshot.listening if watch.cluster_id == key.cluster_id]
    with translated(context.settings, f"read the traffic of node {machine_id} of {key}"):
        to = traffic.flows_to(context, node, snapshot.senders)
        flows = [*to, *traffic.flows_from(context, views, own)]
        found = traffic.with_ages(context, flows, snapshot.now, LOOKED_UP)
        seen = last_seen.of_node(context.redis, watches, machine_id)
    return NodePairs(
        tuple(found[: len(to)]),
        tuple(found[len(to) :]),
        tuple(by_node(seen, snapshot.now).get(node.row_key, ())),
    )


def added(context: Context, snapshot: Snapshot, row: Row) -> Row:
    """Return a row of a snapshot with its pairs. Raises `StateUnavailable`."""
    pairs = read(context, snapshot, row.node)
    return replace(row, flows=pairs.received, last_seen=pairs.last_seen)
