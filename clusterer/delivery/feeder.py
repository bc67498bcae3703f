"""Reads the claimed logs, and offers the batches to the front and to the peers behind."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic

from clusterer.delivery.batch import Batch, sequence_of
from clusterer.delivery.cluster_watch import ClusterWatch
from clusterer.delivery.connector import Connector
from clusterer.delivery.context import Context
from clusterer.delivery.handover import Handover
from clusterer.delivery.leases import Leases
from clusterer.delivery.link import LinkBroken
from clusterer.delivery.peer import Peer
from clusterer.delivery.peer_states import PeerState
from clusterer.delivery.read_pace import Pace, ReadSize
from clusterer.delivery.session import SenderSession
from clusterer.store import ClusterKey
from clusterer.store.deliveries import LogEntry
from clusterer.store.log_reader import LogReader

CONNECTING_S = 0.005
"""Time for new connections before the next read: the read leaves out the logs without one."""


class Feeder:
    """Moves packets from the logs in Redis to the peers of all sessions.

    Each read also brings the versions of the clusters. If a cluster has changed, the sessions are
    updated first: the state of a node at the time of the read decides whether it gets the packets.
    """

    def __init__(
        self,
        context: Context,
        reader: LogReader,
        leases: Leases,
        connector: Connector,
        *,
        handover: Handover,
        watch: ClusterWatch,
    ) -> None:
        self._reader = reader
        self._store = context.store
        self._leases = leases
        self._connector = connector
        self._handover = handover
        self._watch = watch
        self._agenda = context.agenda
        self._dialect3 = context.settings.dialect3
        self._pace, self._size = Pace(), ReadSize()
        self._size_behind = ReadSize()
        """The size of reads behind the front: old packets may be larger than new packets."""
        self._versions: dict[ClusterKey, int] = {}
        """Versions of the clusters of all sessions, from the last reads."""

    def next_at(self, now: float) -> float:
        """Return when `ask` is to be called again (monotonic seconds)."""
        if self._reader.busy:
            return float("inf")
        return self._pace.ask_at if self._pace.ask_at > now else now + CONNECTING_S

    def ask(self) -> None:
        """Begin a read if one is due; interrupt a read under way that lacks a log."""
        heads = self._agenda.heads
        if self._reader.busy:
            asked = self._reader.asked
            moved = self._agenda.moved
            if any(asked.get(name) != heads.get(name, asked.get(name)) for name in moved):
                self._reader.interrupt()
        elif monotonic() >= self._pace.ask_at and (heads or not self._connecting()):
            clusters = tuple(self._agenda.clusters)
            self._agenda.moved.clear()
            self._reader.ask(heads, clusters, self._size.per_log(len(heads)))

    def _connecting(self) -> bool:
        """Whether connections are being made after which more logs are to be read."""
        return self._connector.just_opened(CONNECTING_S) or self._agenda.connects_by(monotonic())

    def take(self) -> bool:
        """Offer the entries of the read under way; True if a sender has become pending."""
        asked = self._reader.asked
        found, versions, rung = self._reader.take()
        self._pace.note_read(sum(map(len, found.values())), monotonic(), len(asked))
        self._note(versions)
        size = 0
        for name, entries in found.items():
            session = self._leases.of_log(name)
            if (
                session is not None
                and asked[name] == session.groups.head
                and session.groups.readable
            ):
                size += self._offer_front(session, entries)
        self._size.note(size)
        return rung

    def _offer_front(self, session: SenderSession, entries: list[LogEntry]) -> int:
        """Offer entries to the front, batch by batch; return the number of bytes."""
        size = 0
        while entries and session in self._leases and session.groups.readable:
            batch = self._batch(session, entries, session.groups.head)
            if not batch.taken:
                break
            size += batch.size
            self._offer(session, session.groups.front, batch)
            if session.groups.head != batch.last:
                break  # the front is elsewhere now: it reads again
            entries = entries[batch.taken :]
        return size

    def _batch(self, session: SenderSession, entries: list[LogEntry], after: int) -> Batch:
        """Return the next batch of ``entries``, and act on entries that are unreadable.

        The batch is empty if no entry can be taken.
        """
        batch = Batch(entries, after, self._dialect3)
        if batch.unread and batch.taken == len(entries):
            batch = self._passed_over(session, batch)
        session.note_unread(batch)
        if batch.taken:
            self._leases.holds.end(session.sender)
        elif batch.not_ours is not None and batch.not_ours[1]:
            self._handover.release_unchanged(session, *batch.not_ours)
        else:
            ids = [entry_id for entry_id, _ in entries]
            session.log_unreadable(ids[0], len(ids), "its sequence is beyond all packets; deleted")
            self._store.delete_entries(session.sender, ids)
        return batch

    def _passed_over(self, session: SenderSession, gap: Batch) -> Batch:
        """Return ``gap``, read again after no new packet can get the sequence of its last entry.

        Another program may have added that entry ahead of the counters, and a sender may have added
        a packet with the same sequence since: the log has the packet behind the entry, and the
        worker must not pass over the packet.
        """
        self._store.pass_over(session.sender, gap.last)
        again = self._store.read(session.sender, gap.after, gap.taken + 1)
        return Batch(again, gap.after, self._dialect3) if again else gap

    def catch_up(self, sessions: list[SenderSession]) -> None:
        """Give the peers behind their turn, with one read for all."""
        turns = [(session, group) for session in sessions if (group := self._next_group(session))]
        if not turns:
            return
        places = [(session.sender, group[0].sent_offset) for session, group in turns]
        clusters = tuple({key for session, _ in turns for key in session.members.clusters})
        count = self._size_behind.per_log(len(turns))
        found, versions = self._store.read_all(places, count, clusters)
        if self._note(versions):
            return  # read again: the peers that get the packets have changed
        size = 0
        for (session, group), (_, after), entries in zip(turns, places, found, strict=True):
            # The turns of other sessions may have changed this session.
            still = [
                peer
                for peer in group
                if peer.sent_offset == after and session.groups.is_ready(peer)
            ]
            if still and session in self._leases:
                size += self._offer_behind(session, still, after, entries)
        self._size_behind.note(size)

    def _next_group(self, session: SenderSession) -> list[Peer]:
        """Return the group that reads next; empty if the group is at the head already."""
        group = session.groups.next_behind()
        if group:
            session.groups.turn_over()
            session.groups.jump()
            group = [peer for peer in group if peer.sent_offset < session.groups.head]
            if not group:
                session.regroup()
        return group

    def _offer_behind(
        self, session: SenderSession, group: list[Peer], after: int, entries: list[LogEntry]
    ) -> int:
        """Offer entries to peers behind; return the number of bytes."""
        if session.groups.holds_head:  # the read of the front returns the following entries
            entries = [entry for entry in entries if sequence_of(entry[0]) <= session.groups.head]
        if entries:
            batch = self._batch(session, entries, after)
            if batch.taken:
                self._offer(session, group, batch)
            return batch.size
        session.recorder.touched = True
        for peer in group:
            # The following entries were trimmed. The gap in the packet count of the cluster tells
            # the number of lost packets, at the latest with the next packet.
            session.groups.skip_gap(peer)
        session.regroup()
        return 0

    def _note(self, versions: Mapping[ClusterKey, int]) -> bool:
        """Note the versions in a reply; refresh the sessions if a cluster has changed."""
        changed = any(self._versions.get(key) != version for key, version in versions.items())
        if changed:
            self._versions |= versions
            self._watch.refresh()
        return changed

    def _offer(self, session: SenderSession, group: list[Peer], batch: Batch) -> None:
        session.recorder.touched = True
        at_front = group is session.groups.front
        if session.note(batch):
            self._watch.refresh()
            session.groups.end_rest()
            group = [
                peer
                for peer in session.peers.values()
                if peer.sent_offset == batch.after and session.groups.is_ready(peer)
            ]
        served = [self._offer_one(session, peer, batch) for peer in group]
        session.count(batch.packets or batch.taken)
        if at_front:
            session.advance(batch)
        if not all(served) or group is not session.groups.front:
            session.regroup()

    def _offer_one(self, session: SenderSession, peer: Peer, batch: Batch) -> bool:
        if not self._leases.may_write(session):
            return False
        try:
            done = peer.offer(batch)
        except LinkBroken as error:
            self._connector.broken(session, peer, error)
            return False
        if peer.state is PeerState.BLOCKED:
            self._connector.watch(peer)
        return done
