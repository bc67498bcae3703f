"""Peers of one sender with a closed gate: they skip all packets without a step for each packet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import inf
from time import monotonic

from clusterer.delivery.batch import Batch
from clusterer.delivery.peer import Peer
from clusterer.membership.views import ClusterKey

RECORD_EACH_S, RECORD_WITHIN_S = 0.05, 10.0
"""What was skipped is recorded in Redis after so many seconds per resting node, and at most."""

_GOLDEN = (5**0.5 - 1) / 2
"""Any number of multiples of this number are spread evenly between whole numbers."""


def pace_of(sender: int) -> float:
    """Return 0.5 to 1.5: the records of many senders fall due one after the other."""
    return 0.5 + sender * _GOLDEN % 1


def record_within_s(nodes: int) -> float:
    """Return within how many seconds the skipped packets of so many nodes are recorded."""
    return min(RECORD_EACH_S * nodes, RECORD_WITHIN_S)


class Resting:
    """The peers at the head of the log that skip all packets.

    `settle` moves them to the head; until then their sent offsets may be further back. ``counts``
    has the packets of each cluster up to the head, as far as known.
    """

    def __init__(self, sender: int, counts: Mapping[ClusterKey, int]) -> None:
        self._counts = counts
        self._pace = pace_of(sender)
        self._members: dict[Peer, None] = {}
        self.due_at = inf
        """When the skipped packets are to be recorded (monotonic seconds)."""

    def __iter__(self) -> Iterator[Peer]:
        return iter(self._members)

    def __contains__(self, peer: Peer) -> bool:
        return peer in self._members

    def __bool__(self) -> bool:
        return bool(self._members)

    def add(self, at_head: Iterable[Peer], *, replay: bool) -> bool:
        """Add the peers that only skip; True if there are any."""
        found = [] if replay else [peer for peer in at_head if self._only_skips(peer)]
        self._members |= dict.fromkeys(found)
        if any(peer.counters or not peer.is_recorded() for peer in found):
            self._record_soon()
        return bool(found)

    def _only_skips(self, peer: Peer) -> bool:
        """Whether the peer skips all packets, and nothing else is to be counted before."""
        n = peer.sent_n
        return (
            not peer.up
            and peer.link is None
            and n is not None
            and n == self._counts.get(peer.key, n)
        )

    def end(self, head: int) -> list[Peer]:
        """Settle all peers, remove them, and return them."""
        self.settle(head)
        peers = list(self._members)
        self._members.clear()
        return peers

    def settle(self, head: int) -> None:
        """Move the peers to the head, and count the packets in between as skipped."""
        for peer in self._members:
            if peer.sent_offset < head:
                n = self._counts.get(peer.key, peer.sent_n)
                peer.skip_to(head, n)

    def pass_by(self, batch: Batch, head: int) -> None:
        """Note that a batch was read from ``head``, before the head and the counts follow it."""
        if not self._members:
            return
        if any(
            self._counts.get(key) != frames.first_n - 1 for key, frames in batch.clusters.items()
        ):
            # Packets were lost before, or their number is unknown: each peer has its own count.
            self.settle(head)
            for peer in self._members:
                peer.offer(batch)
        self._record_soon()

    def _record_soon(self) -> None:
        if self.due_at == inf:
            self.due_at = monotonic() + self._pace * record_within_s(len(self._members))
