"""The loop of a delivery job: claims logs, reads them all at once, writes, commits, hands over."""

from __future__ import annotations

import logging
import os
import secrets
import selectors
import socket
import threading
from collections.abc import Callable, Mapping
from time import monotonic

from clusterer import jobs
from clusterer.delivery.batch import Batch
from clusterer.delivery.connector import Connector
from clusterer.delivery.destination import Destination
from clusterer.delivery.drain import Drain
from clusterer.delivery.fencer import Fencer
from clusterer.delivery.handover import Handover
from clusterer.delivery.leases import Leases
from clusterer.delivery.link import LinkBroken
from clusterer.delivery.meter import Meter
from clusterer.delivery.reader import LogReader
from clusterer.delivery.sources import is_local, source_of
from clusterer.errors import StateUnavailable
from clusterer.settings import Settings
from clusterer.store import ClusterKey, Directory, NodeStore, connect
from clusterer.store import keys as key_names
from clusterer.store.drains import DrainStore

log = logging.getLogger(__name__)

SLICE_S = 60.0
"""Longest run of one job, so that work moves between workers and RQ sees jobs end."""

SHARED_SLICE_S = 2.0
"""The same while there are more senders than one job takes: the next job begins with those."""

COMMIT_AFTER = 500
"""Packets written after which they are recorded: what a killed worker's successor may repeat."""

COMMIT_AFTER_S = 0.02
"""Longest time a written frame waits to be recorded."""

CONNECTING_S = 0.005
"""Time that new connections get before a read begins that leaves their logs out."""

FIRST_READ, MAX_READ = 64, 512
"""Entries per log and read: at first, and at most."""

READ_BYTES = 1024 * 1024
"""Bytes that a read should not exceed; the number of entries follows."""

PACE_S = 0.002
"""Pause before the next read while small reads follow each other fast: it collects packets that
else would cost a round trip and a system call per node each. Sparse traffic never waits."""

PACED_BELOW_S = 0.004
PACED_BELOW_ENTRIES = 100

CLAIM_EVERY_S = 1.0
HEARTBEAT_EVERY_S = 10.0


class Engine:
    """Delivers for the senders of one queue. One per process; not for several threads.

    A job is one call of `run`. Nothing survives between jobs but the thread that closes the last
    job's connections.
    """

    def __init__(self, settings: Settings, queue: str, meter: Meter | None = None) -> None:
        self._settings = settings
        token = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        client = connect(settings)
        nodes = NodeStore(settings, client)
        self._jobs_client = jobs.connect(settings)
        self._store = DrainStore(settings, queue, token, client)
        self._directory = Directory(nodes)
        self._fencer = Fencer(settings, queue, token)
        self._reader = LogReader(settings, queue, meter.clock if meter else None)
        self._selector: selectors.BaseSelector = selectors.DefaultSelector()
        self._connector = Connector(settings, nodes, self._selector)
        self._leases = Leases(settings, self._store, self._connector.close_all, meter)
        self._handover = Handover(
            settings,
            self._store,
            self._leases,
            self._connector,
            self._fencer,
            directory=self._directory,
        )
        self._connector.may_write = self._leases.may_write
        self._queue = queue
        self._failures_seen = 0
        self._count = FIRST_READ
        self._versions: dict[ClusterKey, int] = {}
        """Of the clusters that are sent to, as the last reads brought them."""
        self._end = self._read_at = self._ask_at = 0.0
        self._claim_at = self._heartbeat_at = 0.0

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
        self._end = monotonic() + slice_s
        self._clear_timers()
        try:
            self._reader.rung, senders = self._store.begin()
            self._take(senders)
            self._selector.register(self._reader.open(), selectors.EVENT_READ, self._take_read)
            while not stop.is_set() and monotonic() < self._end and self._claim():
                self._turn()
                if heartbeat is not None and monotonic() >= self._heartbeat_at:
                    self._heartbeat_at = monotonic() + HEARTBEAT_EVERY_S
                    heartbeat()
            if not len(self._leases) and self._leases.refused:
                self._store.hold_off()
            left = self._handover.all()
            if left:
                self._call_another()
            self._reader.settle()
        except StateUnavailable:
            self._reader.close()
            raise
        else:
            return left
        finally:
            self._leases.abandon_all()
            for key in list(self._selector.get_map().values()):
                self._selector.unregister(key.fileobj)

    def close(self) -> None:
        """Wait until the last job's connections are closed; at most ``send_timeout`` and a bit."""
        self._fencer.join()
        self._reader.close()
        self._selector.close()

    # -- the loop ---------------------------------------------------------------------------------

    def _clear_timers(self) -> None:
        now = monotonic()
        self._claim_at = now + CLAIM_EVERY_S
        self._heartbeat_at = now + HEARTBEAT_EVERY_S

    def _turn(self) -> None:
        self._leases.renew()
        self._ask()
        for key, _ in self._selector.select(self._timeout()):
            key.data()
        self._connector.expire(monotonic())
        self._take_over_changes()
        for drain in self._leases:
            for step in (self._catch_up, self._connect, self._move, self._handover.when_idle):
                if drain in self._leases:
                    step(drain)
        self._commit_when_due()
        self._handover.poll_fences()

    def _timeout(self) -> float:
        """Seconds that the loop may sleep."""
        now = monotonic()
        until = min(self._leases.renew_at, self._claim_at, self._connector.next_deadline())
        for drain in self._leases:
            if drain.next_behind():
                return 0.0
            if drain.uncommitted:
                until = min(until, drain.uncommitted_since + COMMIT_AFTER_S)
            until = min(until, self._handover.due_at(drain), drain.retry_at())
        if not self._reader.busy:
            until = min(until, self._ask_at if self._ask_at > now else now + CONNECTING_S)
        return max(until - now, 0.0)

    def _claim(self) -> bool:
        """Take pending senders, at the times when that is due; True if any drain is held."""
        now = monotonic()
        if now >= self._claim_at:
            self._claim_at = now + CLAIM_EVERY_S
            self._take(self._leases.unclaimed())
        return len(self._leases) > 0

    def _take(self, senders: list[int]) -> None:
        if senders:
            self._refresh()
            if self._leases.claim(senders, self._directory):
                self._call_another()
                self._end = min(self._end, monotonic() + SHARED_SLICE_S)

    # -- reading and writing ----------------------------------------------------------------------

    def _ask(self) -> None:
        logs = {key_names.log(drain.sender): drain.head for drain in self._leases if drain.readable}
        if self._reader.busy:
            if any(self._reader.asked.get(name) != head for name, head in logs.items()):
                self._reader.interrupt()
        elif monotonic() >= self._ask_at and (logs or not self._connecting()):
            clusters = {key for drain in self._leases for key in drain.clusters}
            self._reader.ask(logs, tuple(clusters), self._count)

    def _connecting(self) -> bool:
        """Whether logs will be readable in a moment, when connections are made."""
        now = monotonic()
        return self._connector.just_opened(CONNECTING_S) or any(
            drain.retry_at() <= now for drain in self._leases
        )

    def _take_read(self) -> None:
        asked = self._reader.asked
        found, versions, rung = self._reader.take()
        self._pace(sum(map(len, found.values())))
        self._note(versions)
        if rung:
            self._claim_at = 0.0
        size = 0
        for drain in self._leases:
            name = key_names.log(drain.sender)
            if name in found and asked[name] == drain.head and drain.readable:
                batch = Batch(found[name], drain.head)
                size += batch.size
                self._offer(drain, drain.front, batch)
        if size:
            self._fit_count(size)

    def _note(self, versions: Mapping[ClusterKey, int]) -> bool:
        """Take over what has changed by the time of a read; True if something has."""
        changed = any(self._versions.get(key) != version for key, version in versions.items())
        if changed:
            self._versions |= versions
            self._refresh()
        return changed

    def _pace(self, entries: int) -> None:
        """Choose when to read next, after ``entries`` came."""
        now = monotonic()
        fast = now - self._read_at < PACED_BELOW_S and 0 < entries < PACED_BELOW_ENTRIES
        self._ask_at = now + PACE_S if fast else now
        self._read_at = now

    def _catch_up(self, drain: Drain) -> None:
        """Let those behind take their turn: one read for those who are furthest back."""
        group = drain.next_behind()
        if not group:
            return
        drain.jump()
        group = [d for d in group if d.position < drain.head]
        if group:
            after = group[0].position
            clusters = tuple(drain.clusters)
            entries, versions = self._store.read_on(drain.sender, after, self._count, clusters)
            if self._note(versions):
                return  # read again, for those who are to have it now
            if entries:
                self._offer(drain, group, Batch(entries, after))
                return
            for destination in group:
                # Nothing follows although more was there: trimmed. The gap in the cluster's
                # packet count tells how much, as soon as the next packet comes.
                drain.skip_gap(destination)
        drain.regroup()

    def _offer(self, drain: Drain, group: list[Destination], batch: Batch) -> None:
        if drain.note(batch):
            self._refresh()
            group = [
                d
                for d in drain.destinations.values()
                if d.position == batch.after and drain.is_ready(d)
            ]
        served = [self._offer_one(drain, destination, batch) for destination in group]
        drain.count(batch.packets)
        if group is drain.front:
            drain.advance(batch)
        if not all(served) or group is not drain.front:
            drain.regroup()

    def _offer_one(self, drain: Drain, destination: Destination, batch: Batch) -> bool:
        if not self._leases.may_write(drain):
            return False
        try:
            done = destination.offer(batch)
        except LinkBroken as error:
            self._connector.broken(drain, destination, error)
            return False
        if destination.outbox is not None:
            self._connector.watch(destination)
        return done

    def _fit_count(self, size: int) -> None:
        """Keep reads bounded in bytes, whatever the entries' size; the last one had ``size``."""
        if size > READ_BYTES:
            self._count = max(self._count // 2, 8)
        elif size < READ_BYTES // 4:
            self._count = min(self._count * 2, MAX_READ)

    def _connect(self, drain: Drain) -> None:
        for d in drain.behind:
            if d.lacks_link and monotonic() >= d.retry_at:
                source = source_of(drain.sender, d.key, self._directory.snapshot)
                if source is not None and not is_local(source):
                    if not self._settings.allow_foreign_source:
                        drain.misplaced = True  # the address has left this host
                        return
                    source = None
                self._connector.open(drain, d, source)

    def _move(self, drain: Drain) -> None:
        """Give a log back whose sender has another address now: in order, also for slow peers."""
        if drain.misplaced:
            self._handover.give_up(drain)
            self._claim_at = 0.0

    def _commit_when_due(self) -> None:
        now = monotonic()
        self._leases.commit(
            drain
            for drain in self._leases
            if drain.uncommitted >= COMMIT_AFTER
            or (drain.uncommitted and now >= drain.uncommitted_since + COMMIT_AFTER_S)
        )

    # -- changes ----------------------------------------------------------------------------------

    def _take_over_changes(self) -> None:
        if self._connector.failures != self._failures_seen:
            self._failures_seen = self._connector.failures
            self._refresh()

    def _refresh(self) -> None:
        self._directory.refresh()
        for drain in self._leases:
            gone = drain.update(self._directory.snapshot)
            for destination in gone:
                self._connector.close(destination)
            self._store.forget(drain.sender, [d.field for d in gone])
            drain.misplaced |= any(
                d.link is not None
                and d.source not in (None, source_of(drain.sender, d.key, self._directory.snapshot))
                for d in drain.destinations.values()
            )

    def _call_another(self) -> None:
        if self._store.call_worker():
            jobs.enqueue_delivery(self._queue, self._jobs_client)
