"""All nodes of all clusters with what is known of the packets sent to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from clusterer.membership import Node
from clusterer.services.context import Context
from clusterer.store import ClusterView, keys, translated
from clusterer.store.badvalues import number, read_all, text
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
    oldest_s: float | None
    """Age of the oldest packet that it has still to get, by Redis's clock; None if none waits."""
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
        return node.enabled_in_s(self.now)


def run(context: Context) -> Listing:
    """Read all clusters and their senders' statistics. Raises `StateUnavailable`."""
    store = context.nodes
    views = tuple(store.views().values())
    now = store.now()
    return Listing(now, context.settings.server_id, views, _traffic(context, views, now))


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


def _traffic(context: Context, views: Iterable[ClusterView], now: float) -> tuple[Traffic, ...]:
    nodes = [node for view in views for node in view.nodes.values()]
    senders = sorted({node.machine_id for node in nodes})
    flows = [
        (flow_of(sender, node, hashes), node, hashes)
        for sender, hashes in zip(senders, _read_senders(context, senders), strict=True)
        for node in nodes
        if node.machine_id != sender and sends_to(node, hashes)
    ]
    return tuple(with_ages(context, flows, now))


Hash = Mapping[str, str]
"""A hash of Redis."""

HASHES = (keys.stats, keys.counters, keys.position, keys.cursor)
"""What is read of a sender, in the order of the fields of `SenderHashes`."""


class SenderHashes(NamedTuple):
    """What Redis has of a sender's deliveries."""

    stats: Hash
    counters: Hash
    position: Hash
    cursor: Hash


def _read_senders(context: Context, senders: list[int]) -> list[SenderHashes]:
    with translated(context.settings, "read the senders' statistics"):
        commands = [("hgetall", name(sender)) for sender in senders for name in HASHES]
        replies = iter([decoded(reply) for reply in read_all(context.redis, commands)])
    return [SenderHashes(*(next(replies) for _ in HASHES)) for _ in senders]


def decoded(reply: Mapping[bytes, bytes]) -> Hash:
    """Return a hash as text."""
    return {text(name): text(value) for name, value in reply.items()}


def sends_to(node: Node, hashes: SenderHashes) -> bool:
    """Return whether the sender has ever sent to the node's cluster."""
    return f"{node.cluster_id}:{node.protocol}" in hashes.counters


def flow_of(sender: int, node: Node, hashes: SenderHashes) -> Traffic:
    """Return the traffic to ``node``; without age, and the backlog may be None."""
    place, stats = field_of(node), hashes.stats
    appended = _count(keys.counters(sender), hashes.counters, f"{node.cluster_id}:{node.protocol}")
    reached = _count(keys.position(sender), hashes.position, place)
    numbers = {
        name: _count(keys.stats(sender), stats, f"{place}/{name}") or 0 for name in _COUNTERS
    }
    return Traffic(
        sender,
        node.cluster_id,
        node.protocol,
        node.machine_id,
        backlog=None if reached is None else max(0, (appended or 0) - reached),
        oldest_s=None,
        last_delivered=stats.get(f"{place}/last_delivered", ""),
        **numbers,
    )


def _count(key: str, found: Hash, name: str) -> int | None:
    """Return a counter; None if there is none or, reported, something else."""
    value = number(key, f"field {name}", found.get(name), -1)
    return None if value < 0 else value


Flow = tuple[Traffic, Node, SenderHashes]
"""Traffic with what it was made of."""


def with_ages(
    context: Context, flows: Sequence[Flow], now: float, most: int | None = None
) -> list[Traffic]:
    """Return the traffic with what only the logs tell: since when packets wait.

    And how many, for nodes that no worker has looked at yet; of these at most ``most``, each
    takes several round trips. All the others together take one.
    """
    unknown = [(item, node) for item, node, _ in flows if item.backlog is None][:most]
    unread = {
        (item.sender, field_of(node)): context.backlog.unread(item.sender, node)
        for item, node in unknown
    }
    places = {
        (item.sender, field_of(node)): _count(
            keys.cursor(item.sender), hashes.cursor, field_of(node)
        )
        or 0
        for item, node, hashes in flows
        if item.backlog
    }
    asked = sorted({(sender, at) for (sender, _), at in places.items()})
    since_ms = dict(zip(asked, context.backlog.appended_ms(asked), strict=True))
    found = []
    for item, node, _ in flows:
        place = item.sender, field_of(node)
        backlog, ms = unread.get(place) or (item.backlog, 0)
        if place in places:
            ms = since_ms[item.sender, places[place]]
        age = round(max(0.0, now - ms / 1000), 3) if ms and backlog != 0 else None
        found.append(replace(item, backlog=backlog, oldest_s=age))
    return found
