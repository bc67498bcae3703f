"""The traffic from each sender to each node; the cost grows with the pairs that have traffic."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from clusterer.membership import Node, NodeKey
from clusterer.membership.views import all_nodes
from clusterer.services.context import Context
from clusterer.store import ClusterKey, ClusterView, sender_hashes
from clusterer.store.badvalues import number, text
from clusterer.store.deliveries import STATS
from clusterer.store.sender_hashes import Fields, Hash, SenderHashes

_SENDERS_AT_ONCE = 50
"""Senders whose hashes are in memory at once: each has a field per destination and figure."""

LOOKED_UP = 1000
"""Most backlogs that `read` takes from the logs themselves: several round trips each."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Packets from one sender to one node since the sender's log began."""

    sender: int
    """machine_id of the sender."""
    cluster_id: int
    protocol: str
    machine_id: int
    """machine_id of the node that receives the packets."""
    sent: int
    failed: int
    skipped: int
    """Packets that were not sent because the path was not up."""
    lost: int
    """Packets trimmed from the log before the delivery."""
    backlog: int | None
    """Packets in the log that the node has not received; None before a worker judged the first."""
    oldest_s: float | None
    """Age of the oldest packet in the backlog, by the clock of Redis; None if none waits."""
    last_delivered: str
    """Time noted by the delivery worker; empty before the first delivery."""

    @property
    def node_key(self) -> NodeKey:
        """What identifies the node."""
        return ClusterKey(self.cluster_id, self.protocol), self.machine_id


class Flow(NamedTuple):
    """Traffic of one sender to one node, without the data that only the log has."""

    sender: int
    node: Node
    counts: tuple[int, int, int, int]
    """Packets sent, failed, skipped, lost."""
    last_delivered: str
    backlog: int | None
    committed: int
    """Committed offset; 0 before the first delivery."""


class _Field(NamedTuple):
    """A field of a hash: its name, and its name in messages."""

    name: bytes
    place: str

    @classmethod
    def of(cls, name: str) -> _Field:
        return cls(name.encode(), f"field {name}")


class _Destination(NamedTuple):
    """A node, and the names of its fields in the hashes of a sender."""

    node: Node
    field: _Field
    stats: Sequence[_Field]
    """Counts, then the time of the last delivery."""
    cluster: _Field

    @classmethod
    def of(cls, node: Node) -> _Destination:
        field = node.destination
        stats = [_Field.of(f"{field}/{name}") for name in STATS]
        return cls(node, _Field.of(field), stats, _Field.of(f"{node.cluster_id}:{node.protocol}"))


class _Sender:
    """Reads the hashes of one sender."""

    def __init__(self, sender: int, hashes: SenderHashes) -> None:
        self._sender = sender
        self._hashes = hashes
        self._names = sender_hashes.names(sender)

    def flow(self, to: _Destination) -> Flow:
        """Return the traffic to a node; the backlog may be None."""
        stats, counters, committed_count, committed = self._names
        found = self._hashes
        sent, failed, skipped, lost = (
            _count(stats, found.stats, field) or 0 for field in to.stats[:-1]
        )
        appended = _count(counters, found.counters, to.cluster)
        reached = _count(committed_count, found.committed_count, to.field)
        return Flow(
            self._sender,
            to.node,
            (sent, failed, skipped, lost),
            text(found.stats.get(to.stats[-1].name, b"")),
            None if reached is None else max(0, (appended or 0) - reached),
            _count(committed, found.committed, to.field) or 0,
        )

    def destinations(
        self, every: Iterable[_Destination], places: Mapping[bytes, Sequence[_Destination]]
    ) -> list[_Destination]:
        """Return the nodes to which packets were sent, or for which packets wait."""
        found = self._hashes
        recorded = {name.rpartition(b"/")[0] for name in found.stats}
        recorded |= found.committed_count.keys() | found.committed.keys()
        nodes = [to for place in recorded for to in places.get(place, ())]
        if found.waiting:
            nodes += [to for to in every if to.field.name not in recorded]
        own = [
            t
            for t in nodes
            if t.cluster.name in found.counters and t.node.machine_id != self._sender
        ]
        return sorted(own, key=lambda t: (t.node.cluster_id, t.node.protocol, t.node.machine_id))


def _count(key: str, found: Hash, field: _Field) -> int | None:
    """Return a counter; None without one or, reported, for a bad value."""
    value = found.get(field.name)
    count = -1 if value is None else number(key, field.place, value, -1)
    return None if count < 0 else count


def read(context: Context, views: Sequence[ClusterView], now: float) -> list[Traffic]:
    """Return the traffic between all nodes of ``views``, by sender and node."""
    machine_ids = {machine_id for view in views for machine_id in view.nodes}
    senders = sender_hashes.senders(context.redis, machine_ids)
    return with_ages(context, flows_from(context, views, senders), now)


def flows_from(
    context: Context, views: Sequence[ClusterView], machine_ids: Iterable[int]
) -> list[Flow]:
    """Return the traffic from some senders to all nodes of ``views``, by sender and node."""
    left, flows = iter(machine_ids), list[Flow]()
    while batch := list(islice(left, _SENDERS_AT_ONCE)):
        flows += flows_of(views, sender_hashes.read(context.redis, batch))
    return flows


def flows_to(context: Context, node: Node, machine_ids: Sequence[int]) -> list[Flow]:
    """Return the traffic from some senders to one node, by sender.

    `flows_to` reads only the fields of this node in the senders' hashes.
    """
    to = _Destination.of(node)
    fields = Fields([each.name for each in to.stats], to.cluster.name, to.field.name)
    view = ClusterView.of(node.cluster, 0, [node])
    return flows_of([view], fields.read(context.redis, machine_ids))


def flows_of(views: Iterable[ClusterView], known: Mapping[int, SenderHashes]) -> list[Flow]:
    """Return the pairs of sender and node that have traffic, by sender and node.

    A pair has traffic if a worker has recorded something of it, or if packets wait in the log
    of the sender before any worker has looked at the node.
    """
    every = [_Destination.of(node) for node in all_nodes(views)]
    places: dict[bytes, list[_Destination]] = {}
    for to in every:
        places.setdefault(to.field.name, []).append(to)
    readers = [_Sender(sender, hashes) for sender, hashes in known.items()]
    return [reader.flow(to) for reader in readers for to in reader.destinations(every, places)]


def with_ages(
    context: Context, flows: Sequence[Flow], now: float, most: int = LOOKED_UP
) -> list[Traffic]:
    """Return the traffic with the data of the logs: the ages of packets that wait.

    For nodes that no worker has looked at yet, the logs also have the backlog. Each sender and
    generation of such nodes takes several round trips; `with_ages` reads at most ``most`` of them,
    the oldest first. All other flows take one round trip for each 1,000 places in logs.
    """
    found = []
    for flow, (backlog, age) in zip(flows, ages(context, flows, now, most), strict=True):
        node = flow.node
        place = node.cluster_id, node.protocol, node.machine_id
        found.append(Traffic(flow.sender, *place, *flow.counts, backlog, age, flow.last_delivered))
    return found


def ages(
    context: Context, flows: Sequence[Flow], now: float, most: int = LOOKED_UP
) -> list[tuple[int | None, float | None]]:
    """Return the backlog of each flow, and the age in seconds of its oldest packet.

    The logs have both; see `with_ages`.
    """
    unread = _unread(context, flows, most)
    asked = sorted({(flow.sender, flow.committed) for flow in flows if flow.backlog})
    since_ms = dict(zip(asked, context.backlog.appended_ms(asked), strict=True))
    found: list[tuple[int | None, float | None]] = []
    for flow in flows:
        backlog = flow.backlog
        if backlog is None:
            backlog, ms = unread.get(_start(flow), (None, 0))
        else:
            ms = since_ms.get((flow.sender, flow.committed), 0)
        age = round(max(0.0, now - ms / 1000), 3) if ms and backlog != 0 else None
        found.append((backlog, age))
    return found


_Start = tuple[int, int, int, str]
"""Generation, sender and cluster: nodes of one generation have the same backlog."""


def _start(flow: Flow) -> _Start:
    return flow.node.generation, flow.sender, flow.node.cluster_id, flow.node.protocol


def _unread(
    context: Context, flows: Iterable[Flow], most: int
) -> Mapping[_Start, tuple[int | None, int]]:
    starts = {_start(flow): flow.node for flow in flows if flow.backlog is None}
    return {
        start: context.backlog.unread(start[1], starts[start]) for start in sorted(starts)[:most]
    }
