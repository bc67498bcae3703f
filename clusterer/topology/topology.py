"""One cluster of OpenSIPS 3.x nodes as one of its nodes sees it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple

from clusterer.errors import FrameTooLarge
from clusterer.topology.link import (
    NODE_TIMEOUT_S,
    PING_INTERVAL_S,
    PING_TIMEOUT_S,
    Event,
    Limits,
    Link,
    Phase,
    apply,
    due,
)
from clusterer.topology.messages import (
    CapabilityUpdate,
    DescriptionUpdate,
    FullTopology,
    LinkUpdate,
    Message,
    NodeEntry,
    Ping,
    Pong,
    UnknownId,
    decode,
)
from clusterer.topology.nodes import NodeDescription
from clusterer.topology.others import Others, Update
from clusterer.topology.routes import next_hops
from clusterer.wire import Packet

MAX_PATH = 25
"""Nodes in the path of a packet that a node passes on. Source: OpenSIPS."""

NEVER = float("-inf")


class Send(NamedTuple):
    """A packet to be sent at once to one node."""

    node: int
    packet: Packet


class Topology:
    """The links of one cluster of OpenSIPS 3.x nodes, as the node ``own_id`` of it sees them.

    Every method that returns `Send` values expects the caller to send them all at once, in order,
    and then to call `send_failed` for each node that did not take them: between two of them,
    later numbers would overtake earlier ones. ``now`` is in seconds, of a clock that never goes
    back. Announces no capability. Not thread-safe.
    """

    def __init__(
        self,
        cluster_id: int,
        own_id: int,
        started: int,
        *,
        ping_interval: float = PING_INTERVAL_S,
        ping_timeout: float = PING_TIMEOUT_S,
        node_timeout: float = NODE_TIMEOUT_S,
    ) -> None:
        """``started``: UNIX time in whole seconds, later than that of any former `Topology` of
        this node. By it the other nodes know that the node's sequence numbers begin again.
        The times are in seconds, as OpenSIPS's parameters of these names.
        """
        self.cluster_id = cluster_id
        self.own_id = own_id
        self._started = started
        self._limits = Limits(ping_interval, ping_timeout, node_timeout)
        self._nodes: Mapping[int, NodeDescription] = {}
        self._links: dict[int, Link] = {}
        self._others = Others(own_id)
        self._sent: dict[int, float] = {}
        self._heard: dict[int, float] = {}
        self._numbers: dict[type[Update], int] = {LinkUpdate: -1, FullTopology: -1}

    # ------------------------------------------------------------------------------- what is seen
    @property
    def links(self) -> Mapping[int, Link]:
        """Own link to each other enabled node; empty while the own node is disabled or missing."""
        return MappingProxyType(self._links)

    @property
    def routes(self) -> Mapping[int, int]:
        """Node that can be reached → the neighbour over which packets go to it."""
        return next_hops(self._up(), self._onward, self._rank)

    @property
    def reachable(self) -> frozenset[int]:
        """Nodes whose link is up, and those that these nodes reach."""
        return frozenset(self.routes)

    def next_hop(self, node: int) -> int | None:
        """Return the neighbour over which packets go to ``node``; None: not reachable."""
        return self.routes.get(node)

    def neighbours(self, node: int) -> tuple[int, ...]:
        """Return the nodes to which ``node`` has a link that is up, as that node last said."""
        return self._up() if node == self.own_id else tuple(sorted(self._others.neighbours(node)))

    def capabilities(self, node: int) -> Mapping[str, bool]:
        """Return what was last said of ``node``: capability → whether it has all data of it."""
        return self._others.capabilities(node)

    # ------------------------------------------------------------------------------- what happens
    def set_nodes(self, nodes: Mapping[int, NodeDescription], now: float) -> list[Send]:
        """Take ``nodes``, the own node included, as the rows of the cluster.

        New and newly enabled nodes are pinged; links to nodes that stay as they are stay up.
        Without an enabled row of the own node nothing is sent or answered.
        """
        before, self._nodes = self._nodes, dict(nodes)
        own = self._nodes.get(self.own_id)
        active = own is not None and own.enabled
        wanted = {node for node, row in nodes.items() if active and row.enabled} - {self.own_id}
        self._others.set_nodes(nodes)
        sends = self._remove(self._links.keys() - wanted)
        for node in sorted(wanted):
            if node not in self._links:
                self._links[node] = Link(Phase.RESTARTING, now)
                sends += self._apply(node, Event.PING_DUE, now)
            elif before[node].url != nodes[node].url:
                sends += self._apply(node, Event.REPLACED, now)
        return self._note(sends, now)

    def tick(self, now: float) -> list[Send]:
        """Return the pings that are due. To be called every second."""
        sends = []
        for node, link in tuple(self._links.items()):
            retries = self._nodes[node].no_ping_retries
            sent, heard = self._sent.get(node, NEVER), self._heard.get(node, NEVER)
            event = due(link, now, self._limits, retries, sent, heard)
            if event is not None:
                sends += self._apply(node, event, now)
        return self._note(sends, now)

    def received(self, packet: Packet, now: float) -> list[Send]:
        """Take a packet of `clusterer-internal` for this cluster, from a checked source.

        Raises `WireError`, without a change, for a packet with invalid fields. Ignores packets of
        unknown types and versions, and of nodes that are not enabled here.
        """
        source = packet.machine_id
        if source is None or source not in self._links:
            return []
        message = decode(packet)
        sends = self._handle(source, message, now)
        self.heard(_direct(source, message), now)
        return self._note(sends, now)

    def heard(self, node: int, now: float) -> None:
        """Note that a packet of another capability came directly from ``node``, maybe earlier."""
        if node in self._links:
            self._heard[node] = max(now, self._heard.get(node, now))

    def sent(self, node: int, now: float) -> None:
        """Note that a packet of another capability was sent directly to ``node``."""
        if node in self._links:
            self._sent[node] = now

    def send_failed(self, node: int, now: float) -> list[Send]:
        """Note that ``node`` does not take packets: refused, or its buffer is full."""
        if node not in self._links:
            return []
        return self._note(self._apply(node, Event.SEND_FAILED, now), now)

    # -------------------------------------------------------------------------------- messages in
    def _handle(self, source: int, message: Message | None, now: float) -> list[Send]:
        match message:
            case Ping():
                return self._ping(source, message, now)
            case Pong():
                return self._pong(source, message, now)
            case UnknownId():
                return self._introduce(source, now)
            case LinkUpdate() | FullTopology() | CapabilityUpdate():
                return self._update(source, message, now)
        return []  # nodes come from the rows alone, never from a NODE_DESCRIPTION

    def _ping(self, source: int, message: Ping, now: float) -> list[Send]:
        others = self._nodes.keys() - {self.own_id, source} if message.want_list else ()
        answer = self._to(source, Pong(tuple(sorted(others))))
        return [answer, *self._apply(source, Event.PINGED, now)]

    def _pong(self, source: int, message: Pong, now: float) -> list[Send]:
        link = self._links[source]
        expected = max(link.pinged, self._heard.get(source, NEVER)) + self._limits.ping_timeout
        event = Event.ANSWERED if now <= expected else Event.ANSWERED_LATE
        sends = self._apply(source, event, now)
        if link.phase is not Phase.UP and self._links[source].phase is Phase.UP:
            sends.append(self._full_topology(source, message.nodes))
        return sends

    def _introduce(self, source: int, now: float) -> list[Send]:
        description = DescriptionUpdate(self._nodes[self.own_id], (self.own_id,))
        return [
            self._to(source, description),
            *self._apply(source, Event.UNKNOWN_THERE, now),
        ]

    def _update(self, source: int, message: Update, now: float) -> list[Send]:
        news = self._others.take(source, message)
        if news is None:
            return []
        sends = []
        for node, event in news:
            if node in self._links:
                sends += self._apply(node, event, now)
        return sends + self._flood(source, message)

    # ------------------------------------------------------------------------------- messages out
    def _apply(self, node: int, event: Event, now: float) -> list[Send]:
        """Let ``event`` happen to the link; return the ping that it asks for, and the news."""
        before = self._links[node]
        after = self._links[node] = apply(before, event, now)
        sends = []
        if after.pings != before.pings:
            sends.append(self._to(node, Ping(want_list=after.phase is not Phase.UP)))
        if (after.phase is Phase.UP) != (before.phase is Phase.UP):
            sends += self._announce(node, up=after.phase is Phase.UP)
        return sends

    def _remove(self, nodes: Iterable[int]) -> list[Send]:
        """Forget links; tell the remaining neighbours of those that were up."""
        gone = {node: self._links.pop(node) for node in tuple(nodes)}
        sends = []
        for node, link in gone.items():
            self._sent.pop(node, None)
            self._heard.pop(node, None)
            if link.phase is Phase.UP:
                sends += self._announce(node, up=False)
        return sends

    def _announce(self, node: int, *, up: bool) -> list[Send]:
        """Tell the other neighbours about the link to ``node``."""
        receivers = [neighbour for neighbour in self._up() if neighbour != node]
        if not receivers:
            return []  # without a number: if 0 were not sent, nodes would take 1 for an old one
        number = self._number(LinkUpdate)
        update = LinkUpdate(number, self._started, node, up, (self.own_id,))
        return [self._to(receiver, update) for receiver in receivers]

    def _full_topology(self, receiver: int, listed: Iterable[int]) -> Send:
        """Return all known links, with the rows of nodes that ``listed`` does not have."""
        entries = [NodeEntry(self.own_id, None, self._numbers[LinkUpdate], 0, self._up())]
        known = frozenset(listed)
        for node in sorted(self._links.keys() - {receiver}):
            row = None if node in known else self._nodes[node]
            number, timestamp = self._others.link_number(node)
            entries.append(NodeEntry(node, row, number, timestamp, self.neighbours(node)))
        number = self._number(FullTopology)
        while True:
            message = FullTopology(number, self._started, tuple(entries), (self.own_id,))
            try:
                return self._to(receiver, message)
            except FrameTooLarge:  # more than 100 nodes, all linked
                entries = entries[: len(entries) // 2]

    def _flood(self, source: int, message: Update) -> list[Send]:
        """Pass a message on to the neighbours that have not had it."""
        if len(message.path) > MAX_PATH:
            return []
        receivers = [node for node in self._up() if node not in message.path]
        if not receivers:
            return []
        passed = replace(message, path=(*message.path, self.own_id))
        if isinstance(passed, CapabilityUpdate):
            passed = replace(passed, want_reply=False)
        try:
            packet = passed.encode(self.cluster_id, source)
        except FrameTooLarge:
            return []
        return [Send(node, packet) for node in receivers]

    def _to(self, node: int, message: Message) -> Send:
        return Send(node, message.encode(self.cluster_id, self.own_id))

    def _number(self, kind: type[Update]) -> int:
        self._numbers[kind] += 1
        return self._numbers[kind]

    def _note(self, sends: list[Send], now: float) -> list[Send]:
        self._sent.update((send.node, now) for send in sends)
        return sends

    def _up(self) -> tuple[int, ...]:
        return tuple(sorted(n for n, link in self._links.items() if link.phase is Phase.UP))

    def _onward(self, node: int) -> Iterable[int]:
        return (each for each in self.neighbours(node) if each in self._links)

    def _rank(self, node: int) -> tuple[int, int]:
        return self._nodes[node].priority, node


def _direct(source: int, message: Message | None) -> int:
    """Return the node that sent the packet: the last that passed it on, else the source."""
    path: tuple[int, ...] = getattr(message, "path", ())
    return path[-1] if path else source
