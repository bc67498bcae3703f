"""One sender session: a leased log, its peers, and the gates of its paths."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from time import monotonic

from clusterer.delivery.batch import Batch
from clusterer.delivery.context import Context
from clusterer.delivery.gates import Gates
from clusterer.delivery.groups import Groups
from clusterer.delivery.members import Members, Update
from clusterer.delivery.peer import Peer
from clusterer.delivery.peer_maker import PeerMaker
from clusterer.delivery.peer_states import PeerEvent, PeerState
from clusterer.delivery.recorder import Recorder
from clusterer.membership import State
from clusterer.membership.paths import Path
from clusterer.membership.views import Views
from clusterer.runtime.logs import about_machine_id
from clusterer.store.deliveries import Claim, ClosingGuards, Commit

log = logging.getLogger(__name__)

IDLE_S = 1.0
"""Time without a packet after which a sender is the first to make room for others."""


class SenderSession:
    """A leased log that a delivery worker delivers."""

    def __init__(self, claim: Claim, context: Context, views: Views) -> None:
        self.sender = claim.sender
        self.log = claim.log
        """Redis key."""
        self.claim_number = claim.number
        self.taken_at = monotonic()
        """When the lease was taken (monotonic seconds)."""
        self.read_at = monotonic()
        """When a packet was last read (monotonic seconds)."""
        self._store = context.store
        self._agenda = context.agenda
        self._unread_to = 0
        """Last sequence of unreadable entries that were logged."""
        self.gates = Gates(claim.paths, claim.paths_counter, context.clock)
        self._maker = PeerMaker(claim, context, self.gates)
        self.groups = Groups(self._maker, context)
        self.members = Members(self._maker, self.groups, self.gates, context)
        self.recorder = Recorder(self._maker, self.groups, replay=context.replay)
        self.members.update(views)
        self.groups.nodes.record_soon()  # what the log has at the claim

    @property
    def peers(self) -> Mapping[str, Peer]:
        """The peers by `Node.destination`."""
        return self.groups.peers

    @property
    def clamped(self) -> int:
        """Committed offsets that were ahead of the log: Redis has lost packets."""
        return self._maker.clamped

    # -- changes, of which the agenda is told -----------------------------------------------------

    def update(self, views: Views) -> Update | None:
        """Take over the nodes of ``views``; None if the session's clusters have not changed."""
        found = self.members.update(views)
        if found is not None:
            self._agenda.note(self)
        return found

    def regroup(self) -> None:
        """Group the peers again: some of them have moved, or changed their state."""
        self.groups.regroup()
        self._agenda.note(self)

    def advance(self, batch: Batch) -> None:
        """Go on to the end of a batch that was read from the head."""
        self.groups.advance(batch)
        self._agenda.note(self)

    def count(self, packets: int) -> None:
        """Note that ``packets`` were handled and are not committed yet."""
        if self.recorder.count(packets):
            self._agenda.note(self)

    def take_commit(self, *, trim: bool = False) -> Commit | None:
        """Return what Redis does not have since the last call; None if there is nothing."""
        found = self.recorder.take(trim=trim)
        self._agenda.note(self)
        return found

    # -- gates ----------------------------------------------------------------------------------

    def take_paths(self, paths: Mapping[str, Path], counter: int) -> None:
        """Take over the sender's records as Redis has them now."""
        self._judge(self.gates.take_over(paths, counter))

    def has_old_paths(self, counters: Mapping[int, int]) -> bool:
        """Whether Redis, which has these counters by sender, has other records by now."""
        return self.gates.counter != counters.get(self.sender, 0)

    def put_paths(self, written: Iterable[tuple[Peer, Path | None]]) -> None:
        """Take over the records that this worker has written."""
        changed = False
        for peer, path in written:
            self.gates.put(peer.destination, path)
            changed |= self.gates.judge(peer)
        if changed:
            self._gather()

    def judge(self) -> None:
        """Open the gates whose records have not been renewed in time."""
        if self.gates:
            self._judge(None)

    def _judge(self, destinations: Iterable[str] | None) -> None:
        """Judge the peers of these destinations (None: of all records), and the resting nodes."""
        changed = self.gates.judge_all(self.peers, destinations)
        resting = self.groups.nodes.closed_by_records()
        still = self.gates.closed(resting) if resting else resting
        for destination, node in resting.items():
            if destination not in still and node.state is not State.DOWN:
                self.groups.make(node)
                changed = True
        if changed:
            self._gather()

    def _gather(self) -> None:
        self.groups.gather()
        self._agenda.note(self)

    # -- what was read --------------------------------------------------------------------------

    def note(self, batch: Batch) -> bool:
        """Note that packets were read; True if they name a cluster not seen before."""
        self.read_at = monotonic()
        new = set(batch.clusters) - self.members.clusters
        if new:
            self.members.clusters |= new
            self._maker.note_cluster()
        return bool(new)

    def note_unread(self, batch: Batch) -> None:
        """Log the entries that a batch passes over, each once.

        The gap in the packet count of the cluster makes these packets lost for each peer, with the
        next packet or when the log is idle.
        """
        if batch.unread and batch.last > self._unread_to:
            self._unread_to = batch.last
            (entry_id, why), count = batch.unread[0], len(batch.unread)
            self.log_unreadable(entry_id, count, f"{why}; counted as lost")

    def log_unreadable(self, entry_id: bytes, count: int, why: str) -> None:
        """Log that ``count`` entries from ``entry_id`` on cannot be read."""
        log.error(
            "sender %s: log entry %s is unreadable%s: %s",
            self.sender,
            entry_id.decode(),
            f", and so are {count - 1} more" if count > 1 else "",
            why,
            extra=about_machine_id(self.sender, ()),
        )

    def settle(self) -> None:
        """Account for packets at the log's end that were trimmed before they could be read."""
        groups = self.groups
        groups.end_rest()
        tail, counts = self._store.totals(self.sender)
        for peer in groups.peers.values():
            if not groups.is_ready(peer) or peer.sent_offset > tail:
                continue
            # A peer that is at the end already has passed a gap of unknown size.
            if peer.sent_offset == tail or not self._store.read(self.sender, peer.sent_offset, 1):
                peer.lose_to(tail, counts.get(peer.key))
        if groups.nodes and self._ends_at_head(tail):
            groups.end_at(tail, counts)
        self.regroup()

    def _ends_at_head(self, tail: int) -> bool:
        """Whether the log has nothing to read behind the head."""
        if self.groups.head < tail:
            return not self._store.read(self.sender, self.groups.head, 1)
        return self.groups.head == tail

    # -- times ----------------------------------------------------------------------------------

    def busy(self) -> bool:
        """Whether packets came lately, or wait for a node."""
        return bool(self.groups.behind) or monotonic() < self.read_at + IDLE_S

    def retry_at(self) -> float:
        """Return when the next connection is to be tried (monotonic seconds)."""
        return min(
            (peer.retry_at for peer in self.groups.behind if peer.lacks_link),
            default=float("inf"),
        )

    # -- closing guards ---------------------------------------------------------------------------

    def guarded(self) -> bool:
        """Whether another worker's connections may still be open."""
        return any(peer.state is PeerState.GUARDED for peer in self.groups.behind)

    def end_guards(self, guards: ClosingGuards) -> None:
        """Let peers whose closing guards are gone continue from the offsets in ``guards``."""
        for peer in self.groups.behind:
            if peer.state is PeerState.GUARDED and peer.destination not in guards.up:
                peer.change(PeerEvent.GUARD_ENDED)
                offset = guards.committed.get(peer.destination, peer.committed_offset)
                if offset != peer.committed_offset:
                    peer.go_on_from(offset, guards.committed_counts.get(peer.destination))
                    peer.change(PeerEvent.PACKETS_WAIT)
                else:
                    self._maker.note_waiting(peer)
        self.regroup()
