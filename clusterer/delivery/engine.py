"""The loop of a delivery job: claims logs, reads them all at once, writes, commits, hands over."""

from __future__ import annotations

import logging
import os
import secrets
import selectors
import socket
import threading
from collections.abc import Callable
from time import monotonic

from clusterer import jobs
from clusterer.delivery.batch import Batch
from clusterer.delivery.connector import Connector
from clusterer.delivery.destination import Destination
from clusterer.delivery.drain import Drain
from clusterer.delivery.fencer import Fencer
from clusterer.delivery.link import LinkBroken
from clusterer.delivery.reader import LogReader
from clusterer.delivery.sources import all_local, is_local, own_hosts, source_of
from clusterer.ids import PROTO_BIN
from clusterer.settings import BACKLOG_REPLAY, Settings
from clusterer.store import Directory, NodeStore, connect
from clusterer.store import keys as key_names
from clusterer.store.drains import LEASE_MS, DrainStore, LogEntry

log = logging.getLogger(__name__)

SLICE_S = 60.0
"""Longest run of one job, so that work moves between workers and RQ sees jobs end."""

MAX_SENDERS = 32
"""Senders that one job drains at a time; others are left to other workers, or to its next turn."""

BATCH = 500
"""Entries per log and read."""

BATCH_BYTES = 1024 * 1024
"""Bytes that a batch should not exceed; the number of entries per read follows."""

FENCE_POLL_S = 0.02

COMMIT_AFTER_S = 0.02
"""Longest time a written frame waits to be recorded."""

RENEW_EVERY_S = LEASE_MS / 4000
WRITE_WITHIN_S = LEASE_MS / 1000 * 0.8
"""Time after the sending of a renewal in which may be written: shorter than the lease itself."""

CLAIM_EVERY_S = 1.0
HEARTBEAT_EVERY_S = 10.0


class Engine:
    """Delivers for the senders of one queue. One per process; not for several threads.

    A job is one call of `run`. Nothing survives between jobs but the thread that closes the last
    job's connections.
    """

    def __init__(self, settings: Settings, queue: str) -> None:
        self._settings = settings
        self._token = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        client = connect(settings)
        self._jobs_client = jobs.connect(settings)
        self._store = DrainStore(settings, queue, self._token, client)
        self._nodes = NodeStore(settings, client)
        self._directory = Directory(self._nodes)
        self._fencer = Fencer(settings, queue, self._token)
        self._reader = LogReader(settings, queue)
        self._drains: dict[int, Drain] = {}
        self._selector: selectors.BaseSelector = selectors.DefaultSelector()
        self._connector = Connector(settings, self._nodes, self._selector)
        self._connector.may_write = self._may_write
        self._replay = settings.backlog == BACKLOG_REPLAY
        self._queue = queue
        self._write_until = 0.0
        self._failures_seen = 0
        self._refused: set[int] = set()
        self._count = BATCH
        self._renew_at = self._claim_at = self._fences_at = self._heartbeat_at = 0.0

    def run(
        self,
        stop: threading.Event | None = None,
        heartbeat: Callable[[], object] | None = None,
        slice_s: float = SLICE_S,
    ) -> bool:
        """Deliver until nothing is left for ``linger`` seconds, ``slice_s`` is over or ``stop``.

        ``heartbeat`` is called about every 10 s. Returns True if packets are left: another job
        is then on its way. Raises `StateUnavailable` when Redis goes away; all connections are
        then closed.
        """
        stop = stop or threading.Event()
        end = monotonic() + slice_s
        self._clear_timers()
        try:
            self._store.started()
            self._open()
            while not stop.is_set() and monotonic() < end and self._claim():
                self._turn()
                if heartbeat is not None and monotonic() >= self._heartbeat_at:
                    self._heartbeat_at = monotonic() + HEARTBEAT_EVERY_S
                    heartbeat()
            return self._hand_over()
        finally:
            self._abandon_all()
            self._close()

    def close(self) -> None:
        """Wait until the last job's connections are closed; at most ``send_timeout`` and a bit."""
        self._fencer.join()
        self._selector.close()

    # -- the loop ---------------------------------------------------------------------------------

    def _clear_timers(self) -> None:
        self._renew_at = self._claim_at = self._fences_at = 0.0
        self._heartbeat_at = monotonic() + HEARTBEAT_EVERY_S

    def _open(self) -> None:
        self._selector.register(self._reader.open(), selectors.EVENT_READ, self._take_read)
        self._directory.refresh()

    def _close(self) -> None:
        for key in list(self._selector.get_map().values()):
            self._selector.unregister(key.fileobj)
        self._reader.close()

    def _turn(self) -> None:
        self._renew()
        self._ask()
        for key, _ in self._selector.select(self._timeout()):
            key.data()
        self._connector.expire(monotonic())
        self._take_over_changes()
        for drain in list(self._drains.values()):
            self._catch_up(drain)
            self._connect(drain)
            self._commit_when_due(drain)
            self._release_when_idle(drain)
        self._poll_fences()

    def _timeout(self) -> float:
        """Seconds that the loop may sleep."""
        now = monotonic()
        until = min(self._renew_at, self._claim_at, self._connector.next_deadline())
        for drain in self._drains.values():
            if drain.next_behind():
                return 0.0
            if drain.uncommitted:
                until = min(until, drain.uncommitted_since + COMMIT_AFTER_S)
            until = min(until, drain.idle_at(self._settings.linger), drain.retry_at())
            if drain.fenced():
                until = min(until, self._fences_at)
        return max(until - now, 0.0)

    # -- leases -----------------------------------------------------------------------------------

    def _claim(self) -> bool:
        """Take pending senders, at the times when that is due; True if any drain is held."""
        now = monotonic()
        if now < self._claim_at:
            return bool(self._drains)
        self._claim_at = now + CLAIM_EVERY_S
        wanted = [s for s in self._store.pending() if s not in self._drains]
        if not wanted:
            return bool(self._drains)
        leased = self._store.leased(wanted)
        self._directory.refresh()
        free = [s for s in wanted if s not in leased and self._may_deliver(s)]
        for sender in free[: max(MAX_SENDERS - len(self._drains), 0)]:
            self._take(sender)
        if len(free) > MAX_SENDERS - len(self._drains) and len(self._drains) >= MAX_SENDERS:
            self._call_another()
        return bool(self._drains)

    def _take(self, sender: int) -> None:
        asked_at = monotonic()
        claim = self._store.claim(sender)
        if claim is None:
            return
        if not self._drains:
            self._write_until = asked_at + WRITE_WITHIN_S
            self._renew_at = asked_at + RENEW_EVERY_S
        drain = Drain(claim, self._store, self._directory.snapshot, replay=self._replay)
        self._drains[sender] = drain
        self._store.forget(sender, drain.stale_fields())
        if drain.clamped:
            log.warning(
                "machine %s: %s cursors were ahead of its log's end, %s: Redis has lost packets",
                sender,
                drain.clamped,
                claim.tail,
            )

    def _may_deliver(self, sender: int) -> bool:
        if self._settings.allow_foreign_source:
            return True
        hosts = own_hosts(sender, self._directory.snapshot)
        if all_local(hosts):
            self._refused.discard(sender)
            return True
        if sender not in self._refused:
            self._refused.add(sender)
            log.warning(
                "not delivering for machine %s: its address %s is not one of this host",
                sender,
                ", ".join(sorted(hosts)),
            )
        return False

    def _renew(self, *, force: bool = False) -> None:
        sent_at = monotonic()
        if not self._drains or (sent_at < self._renew_at and not force):
            self._renew_at = max(self._renew_at, sent_at + (0 if self._drains else CLAIM_EVERY_S))
            return
        for sender in self._store.renew(list(self._drains)):
            log.warning("machine %s: lease lost, another worker delivers", sender)
            self._abandon(self._drains.pop(sender))
        self._write_until = sent_at + WRITE_WITHIN_S
        self._renew_at = sent_at + RENEW_EVERY_S

    def _may_write(self, drain: Drain) -> bool:
        """Whether the lease certainly still holds; it is renewed if time has run out."""
        if monotonic() < self._write_until:
            return True
        self._renew(force=True)
        return drain.sender in self._drains and monotonic() < self._write_until

    def _abandon(self, drain: Drain) -> None:
        for destination in drain.destinations.values():
            self._connector.close(destination)

    def _abandon_all(self) -> None:
        for drain in self._drains.values():
            self._abandon(drain)
        self._drains.clear()

    # -- reading and writing ----------------------------------------------------------------------

    def _ask(self) -> None:
        logs = {
            key_names.log(sender): drain.head
            for sender, drain in self._drains.items()
            if drain.readable
        }
        if not self._reader.busy:
            versions = [key for key in self._directory.snapshot if key.protocol == PROTO_BIN]
            self._reader.ask(logs, versions, self._count)
        elif any(self._reader.asked.get(name) != head for name, head in logs.items()):
            self._reader.interrupt()

    def _take_read(self) -> None:
        asked = self._reader.asked
        found, versions, rung = self._reader.take()
        known = self._directory.snapshot
        if any(key not in known or known[key].version != v for key, v in versions.items()):
            self._refresh()
        if rung:
            self._claim_at = 0.0
        for drain in list(self._drains.values()):
            name = key_names.log(drain.sender)
            if name in found and asked[name] == drain.head and drain.readable:
                self._offer(drain, drain.front, found[name])

    def _catch_up(self, drain: Drain) -> None:
        """Let those behind take their turn: one read for those who are furthest back."""
        group = drain.next_behind()
        if not group:
            return
        drain.jump()
        group = [d for d in group if d.position < drain.head]
        if group:
            after = group[0].position
            entries = self._store.read(drain.sender, after, self._count)
            if entries:
                self._offer(drain, group, entries)
                return
            for destination in group:
                # Nothing follows although more was there: trimmed. The gap in the cluster's
                # packet count tells how much, as soon as the next packet comes.
                destination.position = destination.cursor = drain.head
        drain.regroup()

    def _offer(self, drain: Drain, group: list[Destination], entries: list[LogEntry]) -> None:
        batch = Batch(entries)
        if drain.note(batch):
            self._refresh()
            group = [
                d for d in drain.destinations.values() if d.position == batch.first - 1
            ] or group
        served = [self._offer_one(drain, destination, batch) for destination in group]
        drain.count(batch.size)
        if group is drain.front:
            drain.advance(batch)
        if not all(served) or group is not drain.front:
            drain.regroup()
        self._fit_count(batch)

    def _offer_one(self, drain: Drain, destination: Destination, batch: Batch) -> bool:
        if not self._may_write(drain):
            return False
        try:
            done = destination.offer(batch)
        except LinkBroken as error:
            self._connector.broken(drain, destination, error)
            return False
        if destination.outbox is not None:
            self._connector.watch(destination)
        return done

    def _fit_count(self, batch: Batch) -> None:
        """Keep a batch's size in bytes bounded, whatever the frames' size."""
        size = sum(len(piece.blob) for piece in batch.slices.values())
        if size > BATCH_BYTES:
            self._count = max(self._count // 2, 8)
        elif size < BATCH_BYTES // 4 and self._count < BATCH:
            self._count *= 2

    def _connect(self, drain: Drain) -> None:
        for d in drain.behind:
            if d.lacks_link and monotonic() >= d.retry_at:
                source = source_of(drain.sender, d.key, self._directory.snapshot)
                if source is not None and not is_local(source):
                    source = None  # may be: allow_foreign_source
                self._connector.open(drain, d, source)

    def _commit_when_due(self, drain: Drain) -> None:
        if drain.uncommitted >= BATCH or (
            drain.uncommitted and monotonic() >= drain.uncommitted_since + COMMIT_AFTER_S
        ):
            self._commit(drain)

    def _commit(self, drain: Drain, *, trim: bool = False) -> None:
        if not drain.commit(trim=trim) and drain.sender in self._drains:
            del self._drains[drain.sender]
            log.warning("machine %s: lease lost, another worker delivers", drain.sender)
            self._abandon(drain)

    # -- changes ----------------------------------------------------------------------------------

    def _take_over_changes(self) -> None:
        if self._connector.failures != self._failures_seen:
            self._failures_seen = self._connector.failures
            self._refresh()

    def _refresh(self) -> None:
        self._directory.refresh()
        for drain in self._drains.values():
            gone = drain.update(self._directory.snapshot)
            for destination in gone:
                self._connector.close(destination)
            self._store.forget(drain.sender, [d.field for d in gone])

    def _poll_fences(self) -> None:
        now = monotonic()
        if now < self._fences_at:
            return
        self._fences_at = now + FENCE_POLL_S
        for drain in self._drains.values():
            if drain.fenced():
                drain.unfence(self._store.fences(drain.sender))

    # -- giving back ------------------------------------------------------------------------------

    def _release_when_idle(self, drain: Drain) -> None:
        if monotonic() < drain.idle_at(self._settings.linger) or drain.sender not in self._drains:
            return
        drain.idle_again()
        drain.settle()
        if drain.reached() < drain.head or any(d.outbox for d in drain.destinations.values()):
            return
        self._release(drain, undrained=False)

    def _release(self, drain: Drain, *, undrained: bool) -> int:
        self._commit(drain, trim=True)
        if drain.sender not in self._drains:
            return -1
        open_ones = [d for d in drain.destinations.values() if d.link and d.link.connected]
        result = self._store.release(
            drain.sender,
            drain.reached(),
            drain.needed_from(),
            [d.field for d in open_ones],
            waiting=drain.waiting(),
            undrained=undrained,
        )
        if result == 0:
            return result
        del self._drains[drain.sender]
        if result > 0:
            for destination in open_ones:
                self._connector.let_go(destination)
                del drain.destinations[destination.field]
            self._fencer.take(drain.sender, open_ones)
        self._abandon(drain)
        return result

    def _hand_over(self) -> bool:
        results = [self._release(d, undrained=True) for d in list(self._drains.values())]
        if 2 in results:
            self._call_another()
        return 2 in results

    def _call_another(self) -> None:
        if self._store.call_worker():
            jobs.enqueue_delivery(self._queue, self._jobs_client)
