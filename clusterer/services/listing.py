"""All nodes of all clusters with what is known of the packets sent to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from clusterer.membership import Condition, Node
from clusterer.services.context import Context
from clusterer.store import ClusterView, keys, translated
from clusterer.store.destinations import field_of

_COUNTERS = ("sent", "failed", "skipped", "lost")


@dataclass(frozen=True, slots=True)
class Traffic:
    """Packets from one sender to one node since the sender's log began."""

    sender: int
    """machine_id of the sending machine."""
    cluster_id: int
    protocol: str
    machine_id: int
    """machine_id of the node they are for."""
    sent: int
    failed: int
    skipped: int
    """Packets that passed the node by because it was not up."""
    lost: int
    """Packets trimmed from the log before they could be delivered."""
    backlog: int | None
    """Packets in the log that the node has still to get; None before the first one is judged."""
    last_delivered: str
    """As the delivering worker noted it; empty if nothing was delivered yet."""


@dataclass(frozen=True, slots=True)
class Listing:
    """Everything `clusterer list` shows, as it was at one moment."""

    now: float
    """Redis TIME of the moment, UNIX seconds."""
    server_id: int
    """The own machine_id, 0 if none is configured."""
    clusters: tuple[ClusterView, ...]
    traffic: tuple[Traffic, ...]

    def enabled_in_s(self, node: Node) -> int | None:
        """Seconds until a temporarily disabled node is enabled again; None for all others."""
        if node.condition is not Condition.DISABLED:
            return None
        return max(0, round(node.enabled_at - self.now))


def run(context: Context) -> Listing:
    """Read all clusters and their senders' statistics. Raises `StateUnavailable`."""
    store = context.nodes
    views = tuple(store.views().values())
    return Listing(store.now(), context.settings.server_id, views, _traffic(context, views))


def as_json(listing: Listing) -> dict[str, Any]:
    """Return the listing as JSON knows it; names are those of the table and of Redis."""
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
        "traffic": [asdict(item) for item in listing.traffic],
    }


def _node_as_json(listing: Listing, node: Node) -> dict[str, Any]:
    return asdict(node) | {
        "state": int(node.state),
        "condition": node.condition.value,
        "enabled_in_s": listing.enabled_in_s(node),
        "own": node.machine_id == listing.server_id,
    }


def _traffic(context: Context, views: Iterable[ClusterView]) -> tuple[Traffic, ...]:
    nodes = [node for view in views for node in view.nodes.values()]
    senders = sorted({node.machine_id for node in nodes})
    found = _read_senders(context, senders)
    flows = (
        (flow_of(sender, node, *hashes), node)
        for sender, hashes in zip(senders, found, strict=True)
        for node in nodes
        if node.machine_id != sender and sends_to(node, hashes[1])
    )
    return tuple(
        flow
        if flow.backlog is not None
        else replace(flow, backlog=context.backlog.unread(flow.sender, node))
        for flow, node in flows
    )


Hash = Mapping[str, str]
"""A hash of Redis."""


def _read_senders(context: Context, senders: list[int]) -> list[tuple[Hash, Hash, Hash]]:
    """Return (stats, counters, position) of each sender."""
    with translated(context.settings, "read the senders' statistics"):
        pipe = context.redis.pipeline(transaction=False)
        for sender in senders:
            for key in (keys.stats(sender), keys.counters(sender), keys.position(sender)):
                pipe.hgetall(key)
        replies = [decoded(reply) for reply in pipe.execute()]
    return list(zip(replies[::3], replies[1::3], replies[2::3], strict=True))


def decoded(reply: Mapping[bytes, bytes]) -> Hash:
    """Return a hash as text."""
    return {name.decode(): value.decode("utf-8", "replace") for name, value in reply.items()}


def sends_to(node: Node, counters: Hash) -> bool:
    """Return whether a sender with these counters has ever sent to the node's cluster."""
    return f"{node.cluster_id}:{node.protocol}" in counters


def flow_of(sender: int, node: Node, stats: Hash, counters: Hash, position: Hash) -> Traffic:
    """Return the traffic to ``node`` from the sender's hashes; the backlog may be None."""
    place = field_of(node)
    appended = int(counters[f"{node.cluster_id}:{node.protocol}"])
    reached = position.get(place)
    numbers = {name: int(stats.get(f"{place}/{name}", 0)) for name in _COUNTERS}
    return Traffic(
        sender,
        node.cluster_id,
        node.protocol,
        node.machine_id,
        backlog=None if reached is None else max(0, appended - int(reached)),
        last_delivered=stats.get(f"{place}/last_delivered", ""),
        **numbers,
    )
