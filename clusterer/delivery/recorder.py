"""What one sender session records in Redis: offsets, counters, and how much of the log to keep."""

from __future__ import annotations

from math import inf
from time import monotonic

from clusterer.delivery.groups import Groups
from clusterer.delivery.peer import Peer
from clusterer.delivery.peer_maker import PeerMaker
from clusterer.store.deliveries import Commit, Move, Rest

COMMIT_AFTER = 500
"""Packets written after which they are recorded: what a killed worker's successor may repeat."""

COMMIT_AFTER_S = 0.02
"""Longest time between the write of a packet and its record."""

_TRIM_EVERY = 2000
"""Delivered packets after which the log is trimmed; Redis frees whole blocks of 100."""


class Recorder:
    """The part of a session's work that Redis does not have yet."""

    def __init__(self, maker: PeerMaker, groups: Groups, *, replay: bool) -> None:
        self._sender = maker.claim.sender
        self._tail = maker.claim.tail
        self._maker = maker
        self._groups = groups
        self._replay = replay
        self.touched = False
        """Whether any entry was offered: until then no committed offset is recorded."""
        self._uncommitted = 0
        self._uncommitted_since = 0.0
        self._trimmed_to = 0

    def count(self, packets: int) -> bool:
        """Note that ``packets`` were handled; True if that changes when a commit is due."""
        first = not self._uncommitted
        if first:
            self._uncommitted_since = monotonic()
        self._uncommitted += packets
        return first or self._uncommitted >= COMMIT_AFTER

    def due_at(self) -> float:
        """Return when a commit is due (monotonic seconds)."""
        if self._uncommitted >= COMMIT_AFTER:
            return 0.0
        record_at = self._groups.record_at
        if self._uncommitted:
            return min(self._uncommitted_since + COMMIT_AFTER_S, record_at)
        return record_at

    def needed_from(self) -> int:
        """Return the first sequence that any peer still needs."""
        groups = self._groups
        groups.resting.settle(groups.head)
        reached = (peer.acknowledged_offset() for peer in groups.peers.values())
        return min(reached, default=groups.head) + 1

    def reached(self) -> int:
        """Return the sequence up to which all nodes that can take packets have them."""
        groups = self._groups
        groups.resting.settle(groups.head)
        able = (peer.committed_offset for peer in groups.peers.values() if not self._waits(peer))
        return min(able, default=max(groups.head, self._tail))

    def waiting(self) -> bool:
        """Whether a peer whose gate is closed has packets to come (replay)."""
        end = max(self._groups.head, self._tail)
        peers = self._groups.peers.values()
        return any(self._waits(peer) and peer.committed_offset < end for peer in peers)

    def _waits(self, peer: Peer) -> bool:
        """Whether the log waits for this peer's gate to open again."""
        return self._replay and not peer.up

    def take(self, *, trim: bool = False) -> Commit | None:
        """Return what Redis does not have since the last call; None if there is nothing."""
        groups = self._groups
        moves: list[Move] = []
        counters: dict[str, int | str] = {}
        trim = trim or groups.head - self._trimmed_to > _TRIM_EVERY
        due = groups.active
        rests: list[Rest] = []
        if trim or monotonic() >= groups.record_at:
            rests = groups.nodes.record(groups.head)
            if rests:
                self._maker.forget_offsets()
            groups.resting.settle(groups.head)
            groups.resting.due_at = inf
            due = list(groups.peers.values())
        for peer in due:
            # The counters and their offset are recorded together, or the next worker counts twice.
            if (self.touched or trim or peer.counters) and not peer.is_recorded():
                moves.append(peer.record())
            if peer.counters:
                counters.update(peer.take_counters())
        needed = self.needed_from() if trim else None
        if trim:
            self._trimmed_to = groups.head
        self._uncommitted = 0
        if not moves and not counters and not rests and not trim:
            return None
        return Commit(self._sender, moves, counters, needed, rests)
