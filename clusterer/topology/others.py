"""What the other nodes of a cluster have said: their links, and their capabilities."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias

from clusterer.topology.link import Event
from clusterer.topology.messages import CapabilityUpdate, FullTopology, LinkUpdate, NodeEntry

MAX_CAPABILITIES = 64
"""Capabilities of one node that are kept. OpenSIPS has 16; a peer could invent any number."""

MAX_NAME = 64
"""Characters of a capability that is kept. OpenSIPS's longest name has 25; a peer could invent
thousands of names of 65,000."""

NEVER_SENT = (-1, 0)
"""Number and time of the messages of a node that sent none."""

Update: TypeAlias = LinkUpdate | FullTopology | CapabilityUpdate
"""Messages with a sequence number, each kind with numbers of its own, that nodes pass on."""

News: TypeAlias = tuple[int, Event]
"""A node, and what its message means for the own link to it."""


@dataclass(slots=True)
class _Other:
    """What is known of one other node."""

    numbers: dict[type[Update], tuple[int, int]] = field(default_factory=dict)
    """Number and time of the last accepted message of each kind."""
    neighbours: frozenset[int] = frozenset()
    capabilities: dict[str, bool] = field(default_factory=dict)

    def accepts(self, kind: type[Update], seq: int, timestamp: int, *, direct: bool) -> bool:
        """Store the number of a new message and return True; return False for an old message.

        A node starts again at 0 when it restarts, so its newer time counts as much as a larger
        number. A 0 of the same time is a new start only if it comes from the node itself: other
        nodes may pass a late one on.
        """
        last, last_time = self.numbers.get(kind, NEVER_SENT)
        new = seq > last or timestamp > last_time or (direct and last > seq == 0)
        if new:
            self.numbers[kind] = seq, timestamp
        return new


class Others:
    """What the other nodes of a cluster have said, as far as they have rows."""

    def __init__(self, own_id: int) -> None:
        self._own_id = own_id
        self._rows: frozenset[int] = frozenset()
        self._others: dict[int, _Other] = {}

    def set_nodes(self, nodes: Iterable[int]) -> None:
        """Take ``nodes`` as those that have rows, the own node among them; forget all others."""
        self._rows = frozenset(nodes)
        known = self._others
        self._others = {
            node: known.get(node) or _Other() for node in self._rows if node != self._own_id
        }

    def neighbours(self, node: int) -> frozenset[int]:
        """Return the nodes to which ``node`` said its link is up."""
        other = self._others.get(node)
        return frozenset() if other is None else other.neighbours & self._rows

    def capabilities(self, node: int) -> Mapping[str, bool]:
        """Return capability → whether ``node`` said that it has all data of it."""
        other = self._others.get(node)
        return MappingProxyType({} if other is None else other.capabilities)

    def link_number(self, node: int) -> tuple[int, int]:
        """Return number and time of the last accepted `LinkUpdate` of ``node``."""
        return self._others[node].numbers.get(LinkUpdate, NEVER_SENT)

    def take(self, source: int, message: Update) -> list[News] | None:
        """Store what ``source``, which has a row, says; None: the message is an old one."""
        direct = len(message.path) <= 1
        other, seq = self._others[source], message.seq
        if not other.accepts(type(message), seq, message.timestamp, direct=direct):
            return None
        match message:
            case LinkUpdate():
                return self._link_update(source, message)
            case FullTopology():
                time = message.timestamp
                entries = (self._entry(source, entry, time) for entry in message.entries)
                return [news for each in entries for news in each]
        self._learn(message)
        return []

    def _link_update(self, source: int, message: LinkUpdate) -> list[News]:
        other, neighbour = self._others[source], frozenset((message.neighbour,))
        if message.up:
            other.neighbours |= neighbour & self._rows
        else:
            other.neighbours -= neighbour
        if message.neighbour != self._own_id:
            return []
        return [(source, Event.REPORTED_UP if message.up else Event.REPORTED_DOWN)]

    def _entry(self, source: int, entry: NodeEntry, time: int) -> list[News]:
        other = self._others.get(entry.node)
        if other is None:  # no row, or the own node
            return []
        if entry.node == source:
            other.numbers[LinkUpdate] = entry.seq, time  # the entry's own time is always 0
        elif not other.accepts(LinkUpdate, entry.seq, entry.timestamp, direct=False):
            return []
        # A node does not know of the links of other nodes to itself: OpenSIPS leaves itself out.
        kept = other.neighbours.intersection((source,))
        other.neighbours = self._rows.intersection(entry.neighbours) | kept
        return [(entry.node, Event.REPORTED_UP)] if self._own_id in other.neighbours else []

    def _learn(self, message: CapabilityUpdate) -> None:
        for node, capabilities in message.nodes:
            other = self._others.get(node)
            if other is None:  # no row, or the own node
                continue
            for name, ok in capabilities:
                known = name in other.capabilities
                if known or (len(other.capabilities) < MAX_CAPABILITIES and len(name) <= MAX_NAME):
                    other.capabilities[name] = ok
