"""One sender session: a leased log and its peers, grouped by their sent offsets."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cache
from time import monotonic
from typing import NamedTuple

from clusterer.delivery.agenda import Agenda
from clusterer.delivery.batch import Batch
from clusterer.delivery.clock import Clock
from clusterer.delivery.gates import Gates
from clusterer.delivery.meter import Meter
from clusterer.delivery.peer import Peer
from clusterer.delivery.peer_states import PeerEvent, PeerState
from clusterer.delivery.resting import Resting
from clusterer.delivery.resting_nodes import RestingNodes, not_resting
from clusterer.delivery.roster import Roster, Rosters, Views
from clusterer.membership import Node, State
from clusterer.membership.paths import Path
from clusterer.membership.views import ClusterKey, ClusterView
from clusterer.runtime.logs import about_machine
from clusterer.store import keys
from clusterer.store.deliveries import Claim, ClosingGuards, Commit, Move, Rest
from clusterer.store.drains import DrainStore

log = logging.getLogger(__name__)


class Update(NamedTuple):
    """What has come of new views: nodes that are not in their cluster any more, and doubts."""

    fields: list[str]
    """The nodes that are gone."""
    peers: list[Peer]
    """The peers that stood for some of them."""
    doubted: list[Peer]
    """Connected peers whose node's verdict has changed and is not up."""


class SenderSession:
    """A leased log that a delivery worker delivers.

    A node that an operator has taken down has no peer from the beginning: see `RestingNodes`.

    ``head`` is the sent offset of the front, the group of ready peers that is furthest. The
    blocking read of the engine follows the head. The peers behind have reads of their own.
    """

    def __init__(
        self,
        claim: Claim,
        store: DrainStore,
        views: Views,
        *,
        replay: bool,
        rosters: Rosters,
        meter: Meter | None = None,
        agenda: Agenda,
        clock: Clock,
    ) -> None:
        """``agenda`` is told when the session may have something else to do.

        ``clock`` knows Redis's time.
        """
        self.sender = claim.sender
        self.log = keys.log(claim.sender)
        """Redis key."""
        self.head = claim.tail
        self.clamped = 0
        """Committed offsets that were ahead of the log: Redis has lost packets."""
        self._claim = claim
        self.claim_number = claim.number
        self._store = store
        self._replay = replay
        self._meter = meter
        self._agenda = agenda
        self.taken_at = monotonic()
        """When the lease was taken (monotonic seconds)."""
        self.clusters = set(claim.counts)
        self._since_ms = dict(claim.since_ms)
        """When each cluster's first packet was appended, Redis ms."""
        self.peers: dict[str, Peer] = {}
        self._awake: list[Peer] = []
        """The peers that are not resting."""
        self._counts = dict(claim.counts)
        """Packets of each cluster up to the head, as far as they were seen."""
        self._resting = Resting(self.sender, self._counts)
        self._rosters = rosters
        self._known: dict[ClusterKey, Roster] = {}
        """The roster of each of our clusters that was taken over last."""
        self.gates = Gates(claim.paths, claim.paths_counter, clock)
        self._nodes = RestingNodes(claim, rosters, self._counts, self.peers)
        """Nodes for which no peer is made."""
        self.front: list[Peer] = []
        self.behind: list[Peer] = []
        self.read_at = monotonic()
        """When a packet was last read (monotonic seconds)."""
        self._nearest_next = False
        self.touched = False
        """Whether any entry was offered: until then no committed offset is recorded."""
        self._unread_to = 0
        """Last sequence of unreadable entries that were logged."""
        self.uncommitted = 0
        self.uncommitted_since = 0.0
        self.trimmed_to = 0
        self._ours: dict[ClusterKey, ClusterView | None] | None = None
        """The views of our clusters that were taken over last."""
        self.update(views)
        self._nodes.record_soon()  # what the log has at the claim

    # -- peers of the session ---------------------------------------------------------------------

    def update(self, views: Views) -> Update | None:
        """Take over the nodes of ``views``; return what has come of that.

        None if our clusters are as they were.
        """
        ours = {key: views.get(key) for key in self.clusters}
        if ours == self._ours:
            return None
        self._ours = ours
        self._resting.wake(self.head)  # judged as they were until now
        # Nodes that came with one reload have one generation: one search for all of them.
        start_of = cache(self._start_of)
        found = Update([], [], [])
        for key in ours:
            self._take_over(key, self._rosters.of(key, views), start_of, found)
        self._nodes.look()
        self._awake = list(self.peers.values())
        self.regroup()
        return found

    def _take_over(
        self, key: ClusterKey, roster: Roster, start_of: Callable[[int], int], found: Update
    ) -> None:
        """Follow the changes of one cluster: the cost is that of the changed nodes."""
        before = self._known.get(key)
        self._known[key] = roster
        left, new = roster.since(before) if before else ({}, self._at_first(key, roster))
        found.fields.extend(f for f, node in left.items() if node.machine_id != self.sender)
        found.peers.extend(self.peers.pop(f) for f in left if f in self.peers)
        for field, node in new.items():
            known = self.peers.get(field)
            if known is not None:
                self._renew(known, node)
                if known.connected and node.state is State.PROBING:
                    found.doubted.append(known)
            elif node.machine_id == self.sender:
                continue
            elif before is None or field not in before.nodes:
                self.peers[field] = self._peer(field, node, start_of)
            elif node.state is not State.DOWN:
                self._renew(self._make(field, before.nodes[field]), node)
        self._nodes.take_over(key, roster)

    def _at_first(self, key: ClusterKey, roster: Roster) -> Mapping[str, Node]:
        if self._replay:
            return roster.nodes
        closed = self.gates.closed(roster.up)
        self._nodes.begin(key, closed)
        return not_resting(self._claim, key, roster, closed)

    def _make(self, field: str, node: Node) -> Peer:
        """Make the peer of a resting node."""
        made = self.peers[field] = self._nodes.made_of(field, node, self.head)
        self._set_flow(made)
        self.gates.judge(made)
        return made

    def _make_all(self) -> None:
        """Make the peers of all resting nodes."""
        for nodes in self._nodes.members().values():
            self._awake += [self._make(field, node) for field, node in nodes.items()]
        self._nodes.look()

    def not_in(self, views: Views) -> list[str]:
        """Return the fields of those of our nodes that ``views`` does not have."""
        return [
            field
            for key, roster in self._known.items()
            for field, node in self._rosters.of(key, views).since(roster).gone.items()
            if node.machine_id != self.sender
        ]

    def stale_fields(self) -> list[str]:
        """Return the destinations of the claim whose node has gone or moved since."""
        stale = set(self._claim.committed)
        for roster in self._known.values():
            stale -= roster.nodes.keys()
        return list(stale)

    def _start_of(self, generation: int) -> int:
        """Return the sequence after which a node without an offset starts; one round trip."""
        return self._store.seek(self.sender, generation, self._claim.tail)

    def _peer(self, field: str, node: Node, start_of: Callable[[int], int]) -> Peer:
        claim = self._claim
        offset = claim.committed.get(field)
        n = claim.committed_counts.get(field)
        key = ClusterKey(node.cluster_id, node.protocol)
        if offset is not None and offset > claim.tail:
            # Repeating a packet is better than losing one: start like a node without an offset.
            self.clamped += 1
            offset = n = None
        elif n is None and node.generation <= self._since_ms.get(key, -1):
            n = 0  # it was there before the cluster's first packet, and none was judged yet
        if offset is None:
            offset = start_of(node.generation)
        peer = Peer(node, offset, n, guarded=field in claim.guarded)
        self._set_flow(peer)
        self.gates.judge(peer)
        self._note_waiting(peer)
        if offset != claim.committed.get(field):
            peer.recorded_offset = -1
        return peer

    def _note_waiting(self, peer: Peer) -> None:
        """Let a peer connect if the log had packets for it at the claim."""
        if peer.state is PeerState.IDLE and peer.sent_offset < self._claim.tail:
            peer.change(PeerEvent.PACKETS_WAIT)

    def _set_flow(self, peer: Peer) -> None:
        if self._meter is not None:
            machine_id = peer.node.machine_id
            peer.flow = self._meter.flow(self.sender, peer.key, machine_id)

    def _renew(self, peer: Peer, node: Node) -> None:
        peer.node = node
        self.gates.judge(peer)

    # -- gates ----------------------------------------------------------------------------------

    def take_paths(self, paths: Mapping[str, Path], counter: int) -> None:
        """Take over the sender's records as Redis has them now."""
        self._judge(self.gates.take_over(paths, counter))

    def has_old_paths(self, counters: Mapping[int, int]) -> bool:
        """Whether Redis, which tells these counters by sender, has other records by now."""
        return self.gates.counter != counters.get(self.sender, 0)

    def put_paths(self, written: Iterable[tuple[Peer, Path | None]]) -> None:
        """Take over the records that this worker has written."""
        changed = False
        for peer, path in written:
            self.gates.put(peer.field, path)
            changed |= self.gates.judge(peer)
        if changed:
            self._gates_changed()

    def judge(self) -> None:
        """Open the gates whose records have not been renewed in time."""
        if self.gates:
            self._judge(None)

    def _judge(self, fields: Iterable[str] | None) -> None:
        """Judge the peers of these fields (None: of all records), and the resting nodes."""
        changed = self.gates.judge_all(self.peers, fields)
        resting = self._nodes.closed_by_records()
        still = self.gates.closed(resting) if resting else resting
        for field, node in resting.items():
            if field not in still and node.state is not State.DOWN:
                self._make(field, node)
                changed = True
        if changed:
            self._gates_changed()

    def _gates_changed(self) -> None:
        self._nodes.look()
        self._resting.wake(self.head)
        self._awake = list(self.peers.values())
        self.regroup()

    # -- groups ---------------------------------------------------------------------------------

    def regroup(self) -> None:
        """Sort the peers into front, behind and resting."""
        ready = [peer for peer in self._awake if self.is_ready(peer)]
        head = max((peer.sent_offset for peer in ready), default=self.head)
        if self.holds_head and head > self.head:
            self.wake_all()
            self._make_all()
            self.regroup()
            return
        if not self.holds_head and head != self.head:
            self.head = head
            self._counts.clear()
        self.front = [peer for peer in ready if peer.sent_offset == self.head]
        if self._resting.add(self.front, replay=self._replay):
            self.front = [peer for peer in self.front if peer not in self._resting]
            self._awake = [peer for peer in self._awake if peer not in self._resting]
        chosen = set(map(id, self.front))
        self.behind = [peer for peer in self._awake if id(peer) not in chosen]
        self._agenda.note(self)

    @property
    def holds_head(self) -> bool:
        """Whether nodes rest at the head, which must not move without a read then."""
        return bool(self._resting or self._nodes)

    def wake_all(self) -> None:
        """Let each resting peer be offered the next batch by itself."""
        self._awake += self._resting.wake(self.head)

    def is_ready(self, peer: Peer) -> bool:
        """Whether a batch may be offered to the peer now."""
        return peer.ready(self._replay)

    @property
    def readable(self) -> bool:
        """Whether the front is to be read: it has peers, or the session has none at all."""
        return bool(self.front or self._resting) or not self.peers

    def next_behind(self) -> list[Peer]:
        """Return the ready peers behind whose turn it is; they share one read.

        Every other turn is for the peers furthest back, which reach the others on their way. The
        turns in between are for the nearest peers: they do not wait for all the others.
        """
        ready = [peer for peer in self.behind if self.is_ready(peer)]
        if not ready:
            return []
        offset = (max if self._nearest_next else min)(peer.sent_offset for peer in ready)
        return [peer for peer in ready if peer.sent_offset == offset]

    def turn_over(self) -> None:
        """Note that a group has had its turn."""
        self._nearest_next = not self._nearest_next

    def advance(self, batch: Batch) -> None:
        """Go on to the end of a batch that was read from ``head``."""
        self._resting.pass_by(batch, self.head)
        self._nodes.pass_by(batch)
        self.head = batch.last
        for key, frames in batch.clusters.items():
            self._counts[key] = frames.last_n
        self._agenda.note(self)

    def skip_gap(self, peer: Peer) -> None:
        """Let a node go to the head over entries that are in the log no more.

        Counted as lost at once if it is known how many they were, else with the next packet.
        """
        if peer.key in self._counts:
            peer.lose_to(self.head, self._counts[peer.key])
        else:
            peer.sent_offset = peer.committed_offset = self.head

    def jump(self) -> None:
        """Let peers with a closed gate skip to the head, where it is known how much that is."""
        for peer in self.behind:
            idle = not peer.up and self.is_ready(peer) and peer.sent_offset < self.head
            if idle and peer.sent_n is not None and peer.key in self._counts:
                peer.skip_to(self.head, self._counts[peer.key])

    # -- times ----------------------------------------------------------------------------------

    def note(self, batch: Batch) -> bool:
        """Note that packets were read; True if they name a cluster not seen before."""
        self.read_at = monotonic()
        new = set(batch.clusters) - self.clusters
        if new:
            self.clusters |= new
            self._since_ms = self._store.since_ms(self.sender)
        return bool(new)

    def note_unread(self, batch: Batch) -> None:
        """Say, once for each entry, what a batch leads over. The gap in the cluster's packet count
        makes it lost for each peer, with the next packet or when the log is idle.
        """
        if batch.unread and batch.last > self._unread_to:
            self._unread_to = batch.last
            (entry_id, why), count = batch.unread[0], len(batch.unread)
            self.say_unreadable(entry_id, count, f"{why}; counted as lost")

    def say_unreadable(self, entry_id: bytes, count: int, why: str) -> None:
        """Log that ``count`` entries from ``entry_id`` on cannot be read."""
        log.error(
            "sender %s: log entry %s is unreadable%s: %s",
            self.sender,
            entry_id.decode(),
            f", and so are {count - 1} more" if count > 1 else "",
            why,
            extra=about_machine(self.sender, ()),
        )

    def busy(self) -> bool:
        """Whether packets came lately, or wait for a node."""
        return bool(self.behind) or monotonic() < self.read_at + IDLE_S

    def retry_at(self) -> float:
        """Return when the next connection is to be tried (monotonic seconds)."""
        return min(
            (peer.retry_at for peer in self.behind if peer.lacks_link),
            default=float("inf"),
        )

    # -- closing guards ---------------------------------------------------------------------------

    def guarded(self) -> bool:
        """Whether another worker's connections may still be open."""
        return any(peer.state is PeerState.GUARDED for peer in self.behind)

    def end_guards(self, guards: ClosingGuards) -> None:
        """Take over which closing guards are gone, and the offsets of their workers."""
        for peer in self.behind:
            if peer.state is PeerState.GUARDED and peer.field not in guards.up:
                peer.change(PeerEvent.GUARD_ENDED)
                offset = guards.committed.get(peer.field, peer.committed_offset)
                if offset != peer.committed_offset:
                    peer.go_on_from(offset, guards.committed_counts.get(peer.field))
                    peer.change(PeerEvent.PACKETS_WAIT)
                else:
                    self._note_waiting(peer)
        self.regroup()

    # -- what to record -------------------------------------------------------------------------

    def count(self, packets: int) -> None:
        """Note that ``packets`` were handled and are not committed yet."""
        if not self.uncommitted:
            self.uncommitted_since = monotonic()
            self._agenda.note(self)
        self.uncommitted += packets
        if self.uncommitted >= COMMIT_AFTER:
            self._agenda.note(self)

    def commit_at(self) -> float:
        """Return when a commit is due (monotonic seconds)."""
        if self.uncommitted >= COMMIT_AFTER:
            return 0.0
        if self.uncommitted:
            return min(self.uncommitted_since + COMMIT_AFTER_S, self._record_at())
        return self._record_at()

    def _record_at(self) -> float:
        """Return when skipped packets are to be recorded (monotonic seconds)."""
        return min(self._resting.due_at, self._nodes.due_at)

    def needed_from(self) -> int:
        """Return the first sequence that some peer still needs."""
        self._resting.settle(self.head)
        reached = (peer.acknowledged_offset() for peer in self.peers.values())
        return min(reached, default=self.head) + 1

    def reached(self) -> int:
        """Return the sequence up to which all nodes that can take packets have them."""
        self._resting.settle(self.head)
        able = (peer.committed_offset for peer in self.peers.values() if not self.waits(peer))
        return min(able, default=max(self.head, self._claim.tail))

    def waits(self, peer: Peer) -> bool:
        """Whether the log waits for this peer's gate to open again (replay)."""
        return self._replay and not peer.up

    def waiting(self) -> bool:
        """Whether a peer whose gate is closed has packets to come."""
        end = max(self.head, self._claim.tail)
        return any(self.waits(peer) and peer.committed_offset < end for peer in self.peers.values())

    def settle(self) -> None:
        """Account for packets at the log's end that were trimmed before they could be read."""
        self.wake_all()
        tail, counts = self._store.totals(self.sender)
        for peer in self.peers.values():
            if not self.is_ready(peer) or peer.sent_offset > tail:
                continue
            # At the end already: it came there over a gap whose size was not known then.
            if peer.sent_offset == tail or not self._store.read(self.sender, peer.sent_offset, 1):
                peer.lose_to(tail, counts.get(peer.key))
        if self._nodes and self._ends_at_head(tail):
            self._nodes.jump(counts)
            self._counts.update(counts)
            self.head = tail
        self.regroup()

    def _ends_at_head(self, tail: int) -> bool:
        """Whether the log has nothing to read behind the head."""
        if self.head < tail:
            return not self._store.read(self.sender, self.head, 1)
        return self.head == tail

    def take_commit(self, *, trim: bool = False) -> Commit | None:
        """Return what is to be recorded in Redis since the last time, None if nothing is."""
        moves: list[Move] = []
        counters: dict[str, int | str] = {}
        trim = trim or self.head - self.trimmed_to > _TRIM_EVERY
        due = self._awake
        rests: list[Rest] = []
        if trim or monotonic() >= self._record_at():
            rests = self._nodes.record(self.head)
            if rests:
                self._claim = replace(self._claim, committed={}, committed_counts={})
            self._resting.settle(self.head)
            self._resting.due_at = float("inf")
            due = list(self.peers.values())
        for peer in due:
            # What is counted and up to where is recorded together, or the next worker counts twice.
            if (self.touched or trim or peer.counters) and not peer.is_recorded():
                moves.append(peer.record())
            if peer.counters:
                counters.update(peer.take_counters())
        needed = self.needed_from() if trim else None
        if trim:
            self.trimmed_to = self.head
        self.uncommitted = 0
        self._agenda.note(self)
        if not moves and not counters and not rests and not trim:
            return None
        return Commit(self.sender, moves, counters, needed, rests)


IDLE_S = 1.0
"""Time without a packet after which a sender is the first to make room for others."""

COMMIT_AFTER = 500
"""Packets written after which they are recorded: what a killed worker's successor may repeat."""

COMMIT_AFTER_S = 0.02
"""Longest time a written frame waits to be recorded."""

_TRIM_EVERY = 2000
"""Delivered packets after which the log is trimmed; Redis frees whole blocks of 100."""
