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
from clusterer.delivery.connector import Connector
from clusterer.delivery.drain import Drain
from clusterer.delivery.feeder import Feeder
from clusterer.delivery.fencer import Fencer
from clusterer.delivery.handover import Handover
from clusterer.delivery.leases import Leases
from clusterer.delivery.meter import Meter
from clusterer.delivery.reader import LogReader
from clusterer.delivery.sources import source_of
from clusterer.errors import StateUnavailable
from clusterer.routes import is_local
from clusterer.settings import Settings
from clusterer.store import Directory, NodeStore, connect
from clusterer.store.drains import DrainStore
from clusterer.store.usable import SenderUnusable

log = logging.getLogger(__name__)

SLICE_S = 60.0
"""Longest run of one job, so that work moves between workers and RQ sees jobs end."""

SHARED_SLICE_S = 2.0
"""The same while there are more senders than one job takes: the next job begins with those."""

COMMIT_AFTER = 500
"""Packets written after which they are recorded: what a killed worker's successor may repeat."""

COMMIT_AFTER_S = 0.02
"""Longest time a written frame waits to be recorded."""

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
        self._feeder = Feeder(
            self._reader,
            self._store,
            self._leases,
            self._connector,
            refresh=self._refresh,
            leave=self._handover.leave,
        )
        self._end = self._claim_at = self._heartbeat_at = 0.0

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
            self._selector.register(self._reader.open(), selectors.EVENT_READ, self._feed)
            while not stop.is_set() and monotonic() < self._end and self._claim():
                self._or_hold(self._turn, then=self._refresh)
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
        self._feeder.ask()
        for key, _ in self._selector.select(self._timeout()):
            key.data()
        self._connector.expire(monotonic())
        self._take_over_changes()
        for drain in self._leases:
            if drain.behind and drain in self._leases:
                self._feeder.catch_up(drain)
            if drain.behind and drain in self._leases:
                self._connect(drain)
            if drain.misplaced and drain in self._leases:
                self._move(drain)
        self._commit_when_due()
        self._handover.poll_idle()
        self._handover.poll_fences()

    def _timeout(self) -> float:
        """Seconds that the loop may sleep."""
        now = monotonic()
        times = [
            self._leases.renew_at,
            self._claim_at,
            self._connector.next_deadline(),
            self._feeder.next_at(now),
            self._handover.idle_poll_at,
        ]
        for drain in self._leases:
            if drain.uncommitted:
                times.append(drain.uncommitted_since + COMMIT_AFTER_S)
            if drain.behind:
                if drain.next_behind():
                    return 0.0
                times.append(drain.retry_at())
                if drain.fenced():
                    times.append(self._handover.fence_poll_at)
        return max(min(times) - now, 0.0)

    def _or_hold(self, act: Callable[[], None], *, then: Callable[[], None]) -> None:
        """Do something; hold the senders of which Redis has something wrong, and do ``then``.

        What was to be done for the other senders may have been left out: ``then`` makes up for it.
        """
        while True:
            try:
                act()
            except SenderUnusable as error:
                self._leases.hold(error.sender, str(error))
                act = then
            else:
                return

    def _claim(self) -> bool:
        """Take pending senders, at the times when that is due; True if any drain is held."""
        now = monotonic()
        if now >= self._claim_at:
            self._claim_at = now + CLAIM_EVERY_S
            self._take(self._leases.unclaimed())
        return len(self._leases) > 0

    def _take(self, senders: list[int]) -> None:
        def take() -> None:
            self._take_all(senders)

        self._or_hold(take, then=take)

    def _take_all(self, senders: list[int]) -> None:
        if senders:
            self._refresh()
            if self._leases.claim(senders, self._directory):
                self._call_another()
                self._end = min(self._end, monotonic() + SHARED_SLICE_S)

    def _feed(self) -> None:
        # Who is full rings for others, and hears it.
        if self._feeder.take() and not self._leases.full:
            self._claim_at = 0.0

    # -- connections and commits ------------------------------------------------------------------

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
            if gone is None:
                continue
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
