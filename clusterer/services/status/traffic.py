"""Which sender sent packets to which node: cost follows the pairs that have traffic."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress, islice
from typing import Any, NamedTuple

from clusterer.membership import Node
from clusterer.services.context import Context
from clusterer.store import ClusterView, keys
from clusterer.store.badvalues import Command, number, read_all, text
from clusterer.store.destinations import field_of

_COUNTERS = ("sent", "failed", "skipped", "lost")

_KEYS_AT_ONCE = 1000
"""Keys that one command asks for."""

_LOOKED_UP = 1000
"""Backlogs that are looked up in the logs themselves, several round trips each."""


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


Hash = Mapping[str, str]
"""A hash of Redis."""


_HASHES = (keys.stats, keys.counters, keys.position, keys.cursor)
"""What is read of a sender, in the order of the fields of `SenderHashes`."""


class SenderHashes(NamedTuple):
    """What Redis has of a sender's deliveries."""

    stats: Hash
    counters: Hash
    position: Hash
    cursor: Hash
    waiting: int
    """Entries in the sender's log."""

    @classmethod
    def of(cls, replies: Iterator[Any]) -> SenderHashes:
        """Return what the replies to `commands` say."""
        stats, counters, position, cursor = (_decoded(next(replies)) for _ in _HASHES)
        return cls(stats, counters, position, cursor, next(replies))


def _decoded(reply: Mapping[bytes, bytes]) -> Hash:
    """Return a hash as text."""
    return {text(name): text(value) for name, value in reply.items()}


def _flow_of(sender: int, node: Node, hashes: SenderHashes) -> Traffic:
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


def senders(context: Context, machine_ids: Iterable[int]) -> list[int]:
    """Return those machines that have sent packets. Asks for 1,000 machines with one command."""
    found: list[int] = []
    waiting = iter(sorted(machine_ids))
    while batch := list(islice(waiting, _KEYS_AT_ONCE)):
        names = [keys.counters(machine_id) for machine_id in batch]
        if context.redis.exists(*names):
            there = read_all(context.redis, [has_sent(machine_id) for machine_id in batch])
            found += compress(batch, there)
    return found


def has_sent(machine_id: int) -> Command:
    """Return what asks whether a machine has sent packets."""
    return "exists", keys.counters(machine_id)


def commands(sender: int) -> Iterator[Command]:
    """Yield what reads a sender's `SenderHashes`."""
    for name in _HASHES:
        yield "hgetall", name(sender)
    yield "xlen", keys.log(sender)


def flows_of(views: Iterable[ClusterView], known: Mapping[int, SenderHashes]) -> list[Flow]:
    """Return the pairs of sender and node that have traffic; without age, by sender and node.

    A pair has traffic if a worker has recorded something of it, or if packets wait in the log
    of the sender before any worker has looked at the node.
    """
    clusters = list(views)
    places: dict[str, list[Node]] = {}
    for view in clusters:
        for node in view.nodes.values():
            places.setdefault(field_of(node), []).append(node)
    return [
        (_flow_of(sender, node, found), node, found)
        for sender, found in known.items()
        for node in _sent_to(found, clusters, places)
        if node.machine_id != sender
    ]


def _sent_to(
    found: SenderHashes, views: Iterable[ClusterView], places: Mapping[str, Sequence[Node]]
) -> list[Node]:
    recorded = {name.rpartition("/")[0] for name in found.stats}
    recorded |= found.position.keys() | found.cursor.keys()
    nodes = {node for place in recorded for node in places.get(place, ()) if _sends(found, node)}
    if found.waiting:
        nodes |= {n for v in views if str(v.key) in found.counters for n in v.nodes.values()}
    return sorted(nodes, key=lambda node: (node.cluster_id, node.protocol, node.machine_id))


def _sends(found: SenderHashes, node: Node) -> bool:
    """Return whether the sender has ever sent to the node's cluster."""
    return f"{node.cluster_id}:{node.protocol}" in found.counters


def with_ages(
    context: Context, flows: Sequence[Flow], now: float, most: int = _LOOKED_UP
) -> list[Traffic]:
    """Return the traffic with what only the logs tell: since when packets wait.

    And how many, for nodes that no worker has looked at yet. That takes several round trips for
    each sender and generation of nodes, for at most ``most`` of them; the oldest come first. All
    the others together take one.
    """
    unread = _unread(context, flows, most)
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
        backlog, ms = item.backlog, 0
        if backlog is None:
            backlog, ms = unread.get(_start(item, node), (None, 0))
        if place in places:
            ms = since_ms[item.sender, places[place]]
        age = round(max(0.0, now - ms / 1000), 3) if ms and backlog != 0 else None
        found.append(replace(item, backlog=backlog, oldest_s=age))
    return found


_Start = tuple[int, int, int, str]
"""Generation, sender and cluster: nodes of one generation have all the same to get."""


def _start(item: Traffic, node: Node) -> _Start:
    return node.generation, item.sender, node.cluster_id, node.protocol


def _unread(
    context: Context, flows: Iterable[Flow], most: int
) -> Mapping[_Start, tuple[int | None, int]]:
    starts = {_start(item, node): node for item, node, _ in flows if item.backlog is None}
    return {
        start: context.backlog.unread(start[1], starts[start]) for start in sorted(starts)[:most]
    }
