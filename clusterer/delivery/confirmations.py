"""Attempts that succeed although the verdict of the node is not up: one ack for each node."""

from __future__ import annotations

from dataclasses import dataclass

from clusterer.delivery.peer import Peer
from clusterer.delivery.session import SenderSession
from clusterer.membership import Condition, Node, State
from clusterer.runtime.routes import is_local
from clusterer.store.client import Clock
from clusterer.store.suspicions import SuspicionStore

REMEMBER_S = 1.0
"""Age of the oldest bytes that are evidence: an ack must follow its attempt soon."""


@dataclass(slots=True)
class _Doubt:
    session: SenderSession
    written: int
    """Bytes that were written to the connection at some time."""
    at: float
    """That time (monotonic seconds)."""


class Confirmations:
    """The connections to nodes whose verdict says that no host reaches them.

    Bytes that a node's kernel has acknowledged are evidence if they were written after this worker
    knew the verdict. A new connection is evidence for a probing node only: a node that is disabled
    because it reads nothing still accepts connections.
    """

    def __init__(self, suspicions: SuspicionStore, clock: Clock) -> None:
        self._suspicions = suspicions
        self._clock = clock
        self._doubts: dict[Peer, _Doubt] = {}

    def connected(self, session: SenderSession, peer: Peer, began_at: float, now: float) -> None:
        """Note a connection that was made; times are monotonic seconds."""
        node, seen = peer.node, peer.attempted or peer.node
        if not _is_doubted(node):
            return
        self.doubt(session, peer, now)
        fell_before = _is_doubted(seen) and seen.epoch == node.epoch
        if fell_before and node.condition is Condition.PROBING:
            self._confirm(session, peer, began_at, now, bytes_taken=False)

    def doubt(self, session: SenderSession, peer: Peer, now: float) -> None:
        """Watch a connection to a node whose verdict is not up."""
        self._doubts[peer] = _Doubt(session, peer.written, now)

    def look(self, now: float) -> None:
        """Send an ack for each node that has acknowledged bytes. Raises `StateUnavailable`."""
        for peer, doubt in list(self._doubts.items()):
            if not peer.connected or not _is_doubted(peer.node):
                del self._doubts[peer]
            elif peer.written == doubt.written:
                doubt.at = now
            elif peer.acknowledged_bytes() > doubt.written:
                self._confirm(doubt.session, peer, doubt.at, now, bytes_taken=True)
            elif now > doubt.at + REMEMBER_S:
                doubt.written, doubt.at = peer.written, now

    def _confirm(
        self,
        session: SenderSession,
        peer: Peer,
        began_at: float,
        now: float,
        *,
        bytes_taken: bool,
    ) -> None:
        del self._doubts[peer]
        if is_local(peer.node.host):
            return
        counts = self._suspicions.ack(
            peer.node,
            session.sender,
            f"delivery of sender {session.sender}",
            began_ms=self._clock.ms(began_at),
            bytes_taken=bytes_taken,
        )
        if not counts:  # the attempt began before the suspicion that is open now
            self.doubt(session, peer, now)


def _is_doubted(node: Node) -> bool:
    return node.state is State.PROBING
