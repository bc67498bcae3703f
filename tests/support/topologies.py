"""Nodes of a 3.x cluster on a network and a clock that exist only in the test."""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterable

from clusterer.topology import LinkState, NodeDescription, Send, Topology
from clusterer.wire import Packet

CLUSTER = 1
STARTED = 1_795_896_000


def rows(ids: Iterable[int], **others: NodeDescription) -> dict[int, NodeDescription]:
    """Return a row for each node; ``n7=...`` gives that of node 7."""
    made = {node: NodeDescription(f"bin:127.0.0.{node}:5555") for node in ids}
    return made | {int(name[1:]): row for name, row in others.items()}


class Network:
    """Several `Topology` objects: what they send arrives late, or not at all."""

    def __init__(self, ids: Iterable[int], *, seed: int = 0, delay: float = 0.01) -> None:
        self.random = random.Random(seed)
        self.rows = rows(ids)
        self.delay = delay
        """Longest way of a packet, in seconds."""
        self.loss = 0.0
        """Share of the packets that are lost."""
        self.cut: set[tuple[int, int]] = set()
        """Connections, from a node to a node, that are refused."""
        self.now = 0.0
        self.nodes: dict[int, Topology] = {}
        self.sent: list[tuple[int, int, Packet]] = []
        """Every packet sent: from, to, packet."""
        self._arrivals: list[tuple[float, int, int, int, Packet]] = []
        self._last: dict[tuple[int, int], float] = {}
        self._ticks: dict[int, float] = {}
        self._waiting: dict[int, list[Packet]] = {}

    def start(self, node: int) -> None:
        """Start ``node``, or restart it with an empty memory."""
        topology = Topology(CLUSTER, node, STARTED + int(self.now))
        self.nodes[node] = topology
        self._ticks[node] = self.now + self.random.random()
        self._send(node, topology.set_nodes(self.rows, self.now))

    def stop(self, node: int) -> None:
        """Stop ``node``: connections to it are refused."""
        del self.nodes[node], self._ticks[node]

    def freeze(self, node: int) -> None:
        """Let ``node`` do nothing until `thaw`: its sockets stay open, packets to it wait."""
        self._ticks[node] = float("inf")

    def thaw(self, node: int) -> None:
        """End `freeze`; the packets that waited arrive."""
        self._ticks[node] = self.now
        for packet in self._waiting.pop(node, []):
            self._send(node, self.nodes[node].received(packet, self.now))

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while True:
            tick = min(self._ticks, key=self._ticks.__getitem__)
            at = self._arrivals[0][0] if self._arrivals else float("inf")
            if min(at, self._ticks[tick]) > end:
                self.now = end
                return
            if at <= self._ticks[tick]:
                self._arrive()
            else:
                self.now = self._ticks[tick]
                self._ticks[tick] += 1.0
                self._send(tick, self.nodes[tick].tick(self.now))

    def states(self) -> dict[tuple[int, int], LinkState]:
        """Return the state of each link, by node and other node."""
        return {
            (node, other): link.state
            for node, topology in self.nodes.items()
            for other, link in topology.links.items()
        }

    def all_up(self) -> bool:
        """Return whether all links of the running nodes are up."""
        return all(
            state is LinkState.UP
            for (_, other), state in self.states().items()
            if other in self.nodes
        )

    def _arrive(self) -> None:
        self.now, _number, _source, node, packet = heapq.heappop(self._arrivals)
        if self._ticks.get(node) == float("inf"):
            self._waiting.setdefault(node, []).append(packet)
        elif node in self.nodes:
            self._send(node, self.nodes[node].received(packet, self.now))

    def _send(self, source: int, sends: list[Send]) -> None:
        refused = []
        for node, packet in sends:
            self.sent.append((source, node, packet))
            if node not in self.nodes or (source, node) in self.cut:
                refused.append(node)
            elif self.random.random() >= self.loss:
                way = self.now + self.random.random() * self.delay
                at = self._last[source, node] = max(way, self._last.get((source, node), 0.0))
                heapq.heappush(self._arrivals, (at, len(self.sent), source, node, packet))
        for node in refused:
            self._send(source, self.nodes[source].send_failed(node, self.now))
