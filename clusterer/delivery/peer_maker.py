"""Makes the peers of one claimed log, each at its committed offset."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from clusterer.delivery.context import Context
from clusterer.delivery.gates import Gates
from clusterer.delivery.peer import Peer
from clusterer.delivery.peer_states import PeerEvent, PeerState
from clusterer.membership import Node
from clusterer.store.deliveries import Claim


class PeerMaker:
    """Makes peers at the committed offsets of a claim, and at the places of nodes without one."""

    def __init__(self, claim: Claim, context: Context, gates: Gates) -> None:
        self.claim = claim
        self._context = context
        self._gates = gates
        self._since_ms = dict(claim.since_ms)
        """By cluster, the time of its first packet, Redis ms."""
        self.clamped = 0
        """Committed offsets that were ahead of the log: Redis has lost packets."""

    def start_of(self, generation: int) -> int:
        """Return the sequence after which a node without an offset starts; one round trip."""
        return self._context.store.seek(self.claim.sender, generation, self.claim.tail)

    def make(self, node: Node, start_of: Callable[[int], int]) -> Peer:
        """Make a peer. ``start_of``: `start_of`, with a cache where many nodes are made."""
        claim, destination = self.claim, node.destination
        offset = claim.committed.get(destination)
        n = claim.committed_counts.get(destination)
        key = node.cluster
        if offset is not None and offset > claim.tail:
            # Repeating a packet is better than losing one: start like a node without an offset.
            self.clamped += 1
            offset = n = None
        elif n is None and node.generation <= self._since_ms.get(key, -1):
            n = 0  # the node was there before the cluster's first packet, and none was judged yet
        if offset is None:
            offset = start_of(node.generation)
        peer = Peer(node, offset, n, guarded=destination in claim.guarded)
        self.prepare(peer)
        self.note_waiting(peer)
        if offset != claim.committed.get(destination):
            peer.recorded_offset = -1
        return peer

    def prepare(self, peer: Peer) -> None:
        """Give a new peer its meter, and open or close its gate."""
        meter = self._context.meter
        if meter is not None:
            peer.flow = meter.flow(self.claim.sender, peer.key, peer.node.machine_id)
        self._gates.judge(peer)

    def note_waiting(self, peer: Peer) -> None:
        """Let a peer connect if the log had packets for it at the claim."""
        if peer.state is PeerState.IDLE and peer.sent_offset < self.claim.tail:
            peer.change(PeerEvent.PACKETS_WAIT)

    def note_cluster(self) -> None:
        """Read the times of the clusters' first packets again: the log names a new cluster."""
        self._since_ms = self._context.store.since_ms(self.claim.sender)

    def forget_offsets(self) -> None:
        """Forget the offsets of the claim: others are recorded since."""
        self.claim = replace(self.claim, committed={}, committed_counts={})
