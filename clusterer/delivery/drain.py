"""One claimed sender: its destinations, grouped by how far they are in its log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from time import monotonic
from typing import NamedTuple

from clusterer.delivery.batch import Batch
from clusterer.delivery.destination import Destination
from clusterer.delivery.meter import Meter
from clusterer.delivery.resting import Resting
from clusterer.delivery.resting_nodes import RestingNodes, not_resting
from clusterer.delivery.roster import Roster, Rosters, Views
from clusterer.membership import Node, State
from clusterer.membership.views import ClusterKey, ClusterView
from clusterer.runtime.logs import about_machine
from clusterer.store import keys
from clusterer.store.deliveries import Claim, Commit, Fences, Move, Rest
from clusterer.store.drains import DrainStore

log = logging.getLogger(__name__)


class Gone(NamedTuple):
    """Nodes that are not in their cluster any more, and the destinations that stood for some."""

    fields: list[str]
    destinations: list[Destination]


class Drain:
    """The deliveries of one sender while its lease is held.

    A node that is down has no destination from the beginning: see `RestingNodes`.

    ``head`` is the position of the front, the group of ready destinations that is furthest; the
    engine's blocking read follows it. All others are behind and read for themselves.
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
        changed: Callable[[Drain], None] = lambda drain: None,
    ) -> None:
        """``changed`` is called whenever the drain may have something else to do than before."""
        self.sender = claim.sender
        self.log = keys.log(claim.sender)
        """Redis key."""
        self.head = claim.tail
        self.clamped = 0
        """Cursors that were ahead of the log: Redis has lost packets."""
        self._claim = claim
        self.claim_number = claim.number
        self._store = store
        self._replay = replay
        self._meter = meter
        self._changed = changed
        self.taken_at = monotonic()
        """When the lease was taken (monotonic seconds)."""
        self.clusters = set(claim.counts)
        self._since_ms = dict(claim.since_ms)
        """When each cluster's first packet was appended, Redis ms."""
        self.destinations: dict[str, Destination] = {}
        self._awake: list[Destination] = []
        """The destinations that are not resting."""
        self._counts = dict(claim.counts)
        """Packets of each cluster up to the head, as far as they were seen."""
        self._resting = Resting(self.sender, self._counts)
        self._rosters = rosters
        self._known: dict[ClusterKey, Roster] = {}
        """The roster of each of our clusters that was taken over last."""
        self._nodes = RestingNodes(claim, rosters, self._counts, self.destinations)
        """Nodes for which no destination is made."""
        self.front: list[Destination] = []
        self.behind: list[Destination] = []
        self.read_at = monotonic()
        """When a packet was last read (monotonic seconds)."""
        self._nearest_next = False
        self.touched = False
        """Whether any entry was offered: until then no cursor is recorded."""
        self._unread_to = 0
        """Last sequence of unreadable entries that were logged."""
        self.uncommitted = 0
        self.uncommitted_since = 0.0
        self.trimmed_to = 0
        self._ours: dict[ClusterKey, ClusterView | None] | None = None
        """The views of our clusters that were taken over last."""
        self.update(views)

    # -- who is there ---------------------------------------------------------------------------

    def update(self, views: Views) -> Gone | None:
        """Take over the nodes of ``views``; return those that are gone.

        None if our clusters are as they were.
        """
        ours = {key: views.get(key) for key in self.clusters}
        if ours == self._ours:
            return None
        self._ours = ours
        self._resting.wake(self.head)  # judged as they were until now
        # Nodes that came with one reload have one generation: one search for all of them.
        start_of = cache(self._start_of)
        gone = Gone([], [])
        for key in ours:
            self._take_over(key, self._rosters.of(key, views), start_of, gone)
        self._nodes.look()
        self._awake = list(self.destinations.values())
        self.regroup()
        return gone

    def _take_over(
        self, key: ClusterKey, roster: Roster, start_of: Callable[[int], int], gone: Gone
    ) -> None:
        """Follow the changes of one cluster: the cost is that of the changed nodes."""
        before = self._known.get(key)
        self._known[key] = roster
        left, new = roster.since(before) if before else ({}, self._at_first(key, roster))
        gone.fields.extend(f for f, node in left.items() if node.machine_id != self.sender)
        gone.destinations.extend(self.destinations.pop(f) for f in left if f in self.destinations)
        for field, node in new.items():
            known = self.destinations.get(field)
            if known is not None:
                self._renew(known, node)
            elif node.machine_id == self.sender:
                continue
            elif before is None or field not in before.nodes:
                self.destinations[field] = self._destination(field, node, start_of)
            elif node.state is State.UP:
                self._make(field, before.nodes[field]).node = node
        self._nodes.take_over(key, roster)

    def _at_first(self, key: ClusterKey, roster: Roster) -> Mapping[str, Node]:
        return roster.nodes if self._replay else not_resting(self._claim, key, roster)

    def _make(self, field: str, node: Node) -> Destination:
        """Make the destination of a resting node."""
        made = self.destinations[field] = self._nodes.made_of(field, node, self.head)
        self._set_flow(made)
        return made

    def _make_all(self) -> None:
        """Make the destinations of all resting nodes."""
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
        """Return cursors read with the claim whose node has gone or moved since."""
        stale = set(self._claim.cursors)
        for roster in self._known.values():
            stale -= roster.nodes.keys()
        return list(stale)

    def _start_of(self, generation: int) -> int:
        """Return the sequence after which a node without a cursor starts; one round trip."""
        return self._store.seek(self.sender, generation, self._claim.tail)

    def _destination(self, field: str, node: Node, start_of: Callable[[int], int]) -> Destination:
        claim = self._claim
        cursor = claim.cursors.get(field)
        n = claim.positions.get(field)
        key = ClusterKey(node.cluster_id, node.protocol)
        if cursor is not None and cursor > claim.tail:
            # Rather a packet twice than one not at all: start like a node without a cursor.
            self.clamped += 1
            cursor = n = None
        elif n is None and node.generation <= self._since_ms.get(key, -1):
            n = 0  # it was there before the cluster's first packet, and none was judged yet
        if cursor is None:
            cursor = start_of(node.generation)
        destination = Destination(node, cursor, n, fenced=field in claim.fenced)
        self._set_flow(destination)
        destination.wanting = cursor < claim.tail
        if cursor != claim.cursors.get(field):
            destination.committed = -1
        return destination

    def _set_flow(self, destination: Destination) -> None:
        if self._meter is not None:
            machine_id = destination.node.machine_id
            destination.flow = self._meter.flow(self.sender, destination.key, machine_id)

    @staticmethod
    def _renew(destination: Destination, node: Node) -> None:
        was_up = destination.up
        destination.node = node
        if was_up and not destination.up:
            destination.stop_writing()

    # -- groups ---------------------------------------------------------------------------------

    def regroup(self) -> None:
        """Sort the destinations into front, behind and resting."""
        ready = [d for d in self._awake if self.is_ready(d)]
        head = max((d.position for d in ready), default=self.head)
        if self.holds_head and head > self.head:
            self.wake_all()
            self._make_all()
            self.regroup()
            return
        if not self.holds_head and head != self.head:
            self.head = head
            self._counts.clear()
        self.front = [d for d in ready if d.position == self.head]
        if self._resting.add(self.front, replay=self._replay):
            self.front = [d for d in self.front if d not in self._resting]
            self._awake = [d for d in self._awake if d not in self._resting]
        chosen = set(map(id, self.front))
        self.behind = [d for d in self._awake if id(d) not in chosen]
        self._changed(self)

    @property
    def holds_head(self) -> bool:
        """Whether nodes rest at the head, which must not move without a read then."""
        return bool(self._resting or self._nodes)

    def wake_all(self) -> None:
        """Let each resting destination be offered the next batch by itself."""
        self._awake += self._resting.wake(self.head)

    def is_ready(self, destination: Destination) -> bool:
        """Whether a batch may be offered to the destination now."""
        return destination.ready(self._replay)

    @property
    def readable(self) -> bool:
        """Whether the front is to be read: somebody is in it, or nobody is there at all."""
        return bool(self.front or self._resting) or not self.destinations

    def next_behind(self) -> list[Destination]:
        """Return the ready destinations behind whose turn it is; they share one read.

        Every other turn is for the furthest back, who gather the others on their way; the turns
        in between are for those who will be done first: they do not wait for all the others.
        """
        ready = [d for d in self.behind if self.is_ready(d)]
        if not ready:
            return []
        position = (max if self._nearest_next else min)(d.position for d in ready)
        return [d for d in ready if d.position == position]

    def turn_over(self) -> None:
        """Note that those whose turn it was have had it."""
        self._nearest_next = not self._nearest_next

    def advance(self, batch: Batch) -> None:
        """Go on to the end of a batch that was read from ``head``."""
        self._resting.pass_by(batch, self.head)
        self._nodes.pass_by(batch)
        self.head = batch.last
        for key, piece in batch.slices.items():
            self._counts[key] = piece.last_n
        self._changed(self)

    def skip_gap(self, destination: Destination) -> None:
        """Let a node go to the head over entries that are in the log no more.

        Counted as lost at once if it is known how many they were, else with the next packet.
        """
        if destination.key in self._counts:
            destination.lose_to(self.head, self._counts[destination.key])
        else:
            destination.position = destination.cursor = self.head

    def jump(self) -> None:
        """Let nodes that are not up skip to the head, where it is known how much that is."""
        for d in self.behind:
            idle = not d.up and self.is_ready(d) and d.position < self.head
            if idle and d.n is not None and d.key in self._counts:
                d.skip_to(self.head, self._counts[d.key])

    # -- times ----------------------------------------------------------------------------------

    def note(self, batch: Batch) -> bool:
        """Note that packets were read; True if they name a cluster not seen before."""
        self.read_at = monotonic()
        new = set(batch.slices) - self.clusters
        if new:
            self.clusters |= new
            self._since_ms = self._store.since_ms(self.sender)
        return bool(new)

    def note_unread(self, batch: Batch) -> None:
        """Say, once for each entry, what a batch leads over. The gap in the cluster's packet count
        makes it lost for each destination, with the next packet or when the log is idle.
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
            (d.retry_at for d in self.behind if d.lacks_link),
            default=float("inf"),
        )

    # -- fences ---------------------------------------------------------------------------------

    def fenced(self) -> bool:
        """Whether another worker's connections may still be open."""
        return any(d.fenced for d in self.behind)

    def unfence(self, fences: Fences) -> None:
        """Take over which fences are down, and how far their workers got."""
        for d in self.behind:
            if d.fenced and d.field not in fences.up:
                d.fenced = False
                cursor = fences.cursors.get(d.field, d.cursor)
                if cursor != d.cursor:
                    d.go_on_from(cursor, fences.positions.get(d.field))
        self.regroup()

    # -- what to record -------------------------------------------------------------------------

    def count(self, packets: int) -> None:
        """Note that ``packets`` were handled and are not committed yet."""
        if not self.uncommitted:
            self.uncommitted_since = monotonic()
            self._changed(self)
        self.uncommitted += packets
        if self.uncommitted >= COMMIT_AFTER:
            self._changed(self)

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
        """Return the first sequence that some destination still needs."""
        self._resting.settle(self.head)
        reached = (d.unacknowledged_from() for d in self.destinations.values())
        return min(reached, default=self.head) + 1

    def reached(self) -> int:
        """Return the sequence up to which all nodes that can take packets have them."""
        self._resting.settle(self.head)
        able = (d.cursor for d in self.destinations.values() if not self.waits(d))
        return min(able, default=max(self.head, self._claim.tail))

    def waits(self, destination: Destination) -> bool:
        """Whether the log waits for this node to come up again (replay)."""
        return self._replay and destination.node.state is not State.UP

    def waiting(self) -> bool:
        """Whether a node that is not up has packets to come."""
        end = max(self.head, self._claim.tail)
        return any(self.waits(d) and d.cursor < end for d in self.destinations.values())

    def settle(self) -> None:
        """Account for packets at the log's end that were trimmed before they could be read."""
        self.wake_all()
        tail, counts = self._store.totals(self.sender)
        for d in self.destinations.values():
            if not self.is_ready(d) or d.position > tail:
                continue
            # At the end already: it came there over a gap whose size was not known then.
            if d.position == tail or not self._store.read(self.sender, d.position, 1):
                d.lose_to(tail, counts.get(d.key))
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
                self._claim = replace(self._claim, cursors={}, positions={})
            self._resting.settle(self.head)
            self._resting.due_at = float("inf")
            due = list(self.destinations.values())
        for destination in due:
            if (self.touched or trim) and not destination.is_committed():
                moves.append(destination.move())
                destination.committed = destination.cursor
                destination.committed_n = destination.cursor_n
            if destination.counters:
                counters.update(destination.take_counters())
        needed = self.needed_from() if trim else None
        if trim:
            self.trimmed_to = self.head
        self.uncommitted = 0
        self._changed(self)
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
