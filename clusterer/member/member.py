"""An instance as a member of one 3.x cluster: what it sends and hears there."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from time import monotonic

from clusterer.errors import ClustererError, WireError
from clusterer.member.outgoing import Outgoing
from clusterer.membership import Node, State
from clusterer.membership.views import ClusterView
from clusterer.payloads.opensips3.extra import MiCommand
from clusterer.runtime.logs import LimitedLog, about_machine_id
from clusterer.store.links import LinkRecord, Place
from clusterer.topology import LinkState, NodeDescription, Send, Topology
from clusterer.wire import Packet
from clusterer.wire.layout3 import INTERNAL

log = logging.getLogger(__name__)

TICK_S = 1.0
"""Between two turns of the topology's timer: that of a node with the default parameters."""

_LOG_INTERVAL_S = 60.0
_WORDS = {LinkState.PROBE: "lost; pinging", LinkState.DOWN: "down; pinging every minute"}


class Member:
    """The instance in the cluster of ``own``, its row there. Used in the listener's loop only.

    ``started``: UNIX seconds of this start, later than those of an earlier one in the process: the
    nodes tell a restart by it.
    """

    def __init__(self, own: Node, started: int, timeout_s: float) -> None:
        self.own = own
        self._timeout_s = timeout_s
        self._topology = Topology(own.cluster_id, own.machine_id, started)
        self._view: ClusterView | None = None
        self._nodes: dict[int, Outgoing] = {}
        self._described: dict[int, NodeDescription] = {}
        self._tick_at = 0.0
        self._unix_ahead = time.time() - monotonic()
        self._logged: dict[int, LinkState] = {}
        """The states of the links as the log has them."""
        self._limited = LimitedLog(log, _LOG_INTERVAL_S)

    def turn(self, view: ClusterView, last_seen: Mapping[int, float], now: float) -> None:
        """Follow the nodes of the cluster, and do what is due at ``now`` (monotonic).

        ``last_seen``: machine_id → monotonic time of its last packet of a module.
        """
        if view != self._view:
            self._view = view
            self._follow(view, now)
        for machine_id, at in last_seen.items():
            self._topology.heard(machine_id, at)
        if now >= self._tick_at:
            self._tick_at = now + TICK_S
            self._send(self._topology.tick(now))
        self._log_changes()

    def received(self, packet: Packet) -> None:
        """Take a control packet of another node of the cluster, whose source was checked.

        Raises `WireError`.
        """
        now, source = monotonic(), packet.machine_id
        outgoing = self._nodes.get(source or 0)
        if source is None or outgoing is None:
            return
        outgoing.resume()
        if packet.module == INTERNAL:
            self._send(self._topology.received(packet, now))
        elif packet.type == MiCommand.TYPE:
            self._warn(source, "management command ignored")

    def links(self) -> Iterator[tuple[Place, LinkRecord]]:
        """Yield what the instance knows of each other node."""
        topology, routes = self._topology, self._topology.routes
        for machine_id, link in topology.links.items():
            yield (
                (self.own.cluster_id, machine_id),
                LinkRecord(
                    link.state.value,
                    link.since + self._unix_ahead,
                    routes.get(machine_id),
                    tuple(sorted(topology.neighbours(machine_id))),
                    {name: int(ok) for name, ok in topology.capabilities(machine_id).items()},
                ),
            )

    def descriptors(self) -> Iterator[int]:
        """Yield the descriptors of the connections."""
        return (each.descriptor for each in self._nodes.values())

    def close(self) -> None:
        """Close all connections, without a word: nodes of OpenSIPS end like that too."""
        for outgoing in self._nodes.values():
            outgoing.close()
        self._nodes.clear()

    def _log_changes(self) -> None:
        """Log links that became up, and links that are up no longer."""
        states = {machine_id: link.state for machine_id, link in self._topology.links.items()}
        for machine_id, state in states.items():
            before = self._logged.get(machine_id, LinkState.PROBE)
            if state is before:
                continue
            if state is LinkState.UP:
                place = self.own.machine_id, machine_id, self.own.cluster_id
                extra = about_machine_id(machine_id, self._rows())
                log.info("instance %d: node %d of cluster %d: link is up", *place, extra=extra)
            else:
                self._warn(machine_id, f"link is {_WORDS[state]}")
        self._logged = states

    # -- nodes ----------------------------------------------------------------------------------

    def _follow(self, view: ClusterView, now: float) -> None:
        others = {i: node for i, node in view.nodes.items() if i != self.own.machine_id}
        for machine_id, outgoing in tuple(self._nodes.items()):
            node = others.get(machine_id)
            if node is None or node.address != outgoing.address:
                self._nodes.pop(machine_id).close()
        for machine_id, node in others.items():
            if machine_id not in self._nodes:
                self._nodes[machine_id] = self._connection(node)
        described = {machine_id: _described(node) for machine_id, node in view.nodes.items()}
        if described != self._described:  # a view changes with each state of a node, too
            self._described = described
            self._send(self._topology.set_nodes(described, now))

    def _connection(self, node: Node) -> Outgoing:
        return Outgoing(
            node.address,
            self.own.host,
            self._timeout_s,
            self._answered,
            partial(self._failed, node.machine_id),
        )

    def _answered(self, packet: Packet) -> None:
        """Take a packet that a node wrote on the connection to it."""
        cluster_id = packet.trailer.cluster_id if packet.trailer is not None else None
        known = packet.machine_id in self._nodes and cluster_id == self.own.cluster_id
        if not known or packet.module != INTERNAL:
            return  # nodes write nothing else there
        try:
            self.received(packet)
        except WireError as error:
            self._warn(packet.machine_id or 0, "bad packet on the connection to it", str(error))

    # -- sending --------------------------------------------------------------------------------

    def _send(self, sends: Iterable[Send]) -> None:
        """Send packets, and those that follow from a failure: once per node."""
        waiting, failed = deque(sends), set[int]()
        last, frame = None, b""
        while waiting:
            node, packet = waiting.popleft()
            outgoing = self._nodes.get(node)
            if outgoing is None or node in failed:
                continue
            if packet is not last:  # a packet for all neighbours is encoded once
                last, frame = packet, self._frame(packet)
            if frame and not outgoing.send(frame):
                failed.add(node)
                waiting.extend(self._topology.send_failed(node, monotonic()))

    def _frame(self, packet: Packet) -> bytes:
        """Return the frame of a packet; empty if it has none, such as one that is too large."""
        try:
            return packet.encode()
        except ClustererError as error:
            self._limited.warning(
                "frame", monotonic(), "cluster %d: not sent: %s", self.own.cluster_id, error
            )
            return b""

    def _failed(self, machine_id: int, reason: str) -> None:
        """Note that frames to a node could not be sent."""
        self._warn(machine_id, "control packets not sent", reason)
        self._send(self._topology.send_failed(machine_id, monotonic()))

    def _rows(self) -> Iterable[Node]:
        return self._view.nodes.values() if self._view is not None else ()

    def _warn(self, machine_id: int, event: str, detail: str = "") -> None:
        """Log an event of a node, at most once a minute: a node can choose the ``detail``."""
        cluster_id = self.own.cluster_id
        self._limited.warning(
            (machine_id, event),
            monotonic(),
            "instance %d: node %d of cluster %d: %s",
            self.own.machine_id,
            machine_id,
            cluster_id,
            f"{event}: {detail}" if detail else event,
            extra=lambda: about_machine_id(machine_id, self._rows()),
        )


def _described(node: Node) -> NodeDescription:
    """Return a node as a topology describes it: our table has no SIP address and no priority."""
    return NodeDescription(
        node.url, no_ping_retries=node.failed_attempts, enabled=node.state is not State.DOWN
    )
