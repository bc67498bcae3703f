"""The loop of a delivery job: claims logs, reads them all at once, writes, commits, hands over."""

from __future__ import annotations

import logging
import os
import secrets
import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

from clusterer import jobs
from clusterer.delivery.claims import Claims
from clusterer.delivery.closer import Closer
from clusterer.delivery.cluster_watch import ClusterWatch
from clusterer.delivery.confirmations import Confirmations
from clusterer.delivery.connector import Connector
from clusterer.delivery.context import Context
from clusterer.delivery.failures import Failures
from clusterer.delivery.feeder import Feeder
from clusterer.delivery.handover import Handover
from clusterer.delivery.leases import Leases
from clusterer.delivery.meter import Meter
from clusterer.delivery.peer import Peer
from clusterer.delivery.session import SenderSession
from clusterer.errors import StateUnavailable
from clusterer.settings import Settings
from clusterer.store import Directory, NodeStore, connect
from clusterer.store.backlog import BacklogStore
from clusterer.store.log_reader import LogReader
from clusterer.store.log_reads import SenderUnusable
from clusterer.store.paths import PathStore
from clusterer.store.sessions import SessionStore
from clusterer.store.suspicions import SuspicionStore

log = logging.getLogger(__name__)

SLICE_S = 60.0
"""Longest run of one job: RQ expects jobs to end."""

MANY_SENDERS = 10
"""Least senders of a worker that releases some for a worker without senders."""

NEIGHBOURS_EVERY_S = 5.0
HEARTBEAT_EVERY_S = 10.0


class Engine:
    """Delivers for the senders of one queue. One per process; not for several threads.

    A job is one call of `run`. Between jobs, the closer's thread goes on, and the engine keeps
    leases and connections if the return value of `run` says so.
    """

    def __init__(self, settings: Settings, queue: str, meter: Meter | None = None) -> None:
        token = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        client = connect(settings)
        nodes, paths = NodeStore(settings, client), PathStore(settings, client)
        suspicions = SuspicionStore(settings, client)
        self._store = SessionStore(settings, queue, token, client)
        self._backlog = BacklogStore(settings, client)
        self._queue = queue
        self._jobs_client = jobs.connect(settings)
        context = Context(settings, self._store, paths, Directory(nodes), meter)
        self._agenda = context.agenda
        self._closer = Closer(settings, queue, token)
        self._reader = LogReader(settings, queue, meter.clock if meter else None)
        self._selector: selectors.BaseSelector = selectors.DefaultSelector()
        self._failures = Failures(nodes, paths, suspicions, context.directory, context.clock)
        self._confirmations = confirmations = Confirmations(suspicions, context.clock)
        self._connector = Connector(settings, self._failures, confirmations, self._selector)
        self._leases = leases = Leases(context, self._connector)
        self._watch = ClusterWatch(context, leases, self._connector, self._failures, confirmations)
        self._handover = Handover(context, leases, self._connector, self._closer)
        self._claims = Claims(self._store, leases, self._handover, self._watch)
        self._feeder = Feeder(
            context,
            self._reader,
            leases,
            self._connector,
            handover=self._handover,
            watch=self._watch,
        )
        self._heartbeat_at = self._neighbours_at = 0.0
        self._kept = False
        """Whether leases and connections wait for the next run."""

    def run(
        self,
        stop: threading.Event | None = None,
        heartbeat: Callable[[], object] | None = None,
        slice_s: float | None = None,
    ) -> bool:
        """Deliver until no packets came for ``linger`` seconds, for ``slice_s``, or until ``stop``.

        Calls ``heartbeat`` about every 10 s. Returns True if packets are left: another job is
        enqueued then. Raises `StateUnavailable` if Redis is unavailable; all connections are closed
        then.

        Without ``slice_s`` the run ends after `SLICE_S` and keeps leases and connections. True then
        means that the caller must call `run` or `hand_over` at once.
        """
        stop = stop or threading.Event()
        end = monotonic() + (SLICE_S if slice_s is None else slice_s)
        self._heartbeat_at = monotonic() + HEARTBEAT_EVERY_S
        with self._closing():
            self._begin()
            while not stop.is_set() and self._claim() and monotonic() < end:
                self._or_hold(self._turn, then=self._watch.refresh)
                if heartbeat is not None and monotonic() >= self._heartbeat_at:
                    self._heartbeat_at = monotonic() + HEARTBEAT_EVERY_S
                    heartbeat()
            self._kept = slice_s is None and len(self._leases) > 0 and not stop.is_set()
            return self._kept or self._release_all()

    def hand_over(self) -> None:
        """Release the logs that the last run has kept. Raises `StateUnavailable`."""
        if self._kept:
            self._kept = False
            with self._closing():
                self._release_all()

    def close(self) -> None:
        """Wait until all connections are closed: see `Closer.join`."""
        try:
            self.hand_over()
        except StateUnavailable as error:
            log.warning("delivery worker: logs not released, their leases expire: %s", error)
        self._closer.join()
        self._reader.close()
        self._selector.close()

    @contextmanager
    def _closing(self) -> Iterator[None]:
        """At the end, close the connections that the next run does not continue."""
        self._kept = False
        try:
            yield
        except StateUnavailable:
            self._reader.close()
            raise
        finally:
            if not self._kept:
                self._leases.abandon_all()
                for key in list(self._selector.get_map().values()):
                    self._selector.unregister(key.fileobj)

    # -- the loop ---------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Start a job, or continue with the sessions that the last job kept."""
        if len(self._leases):
            self._leases.renew(force=True)
            return
        self._reader.rung = self._store.begin()
        self._claims.begin()
        self._selector.register(self._reader.open(), selectors.EVENT_READ)

    def _release_all(self) -> bool:
        self._failures.report(self._leases.renew)
        if not len(self._leases) and self._leases.refused:
            self._backlog.hold_off(self._queue)
        left = self._handover.release_all()
        self._claims.leave()
        if left:
            self._call_another()
        self._reader.settle()
        return left

    def _turn(self) -> None:
        self._leases.renew()
        self._leases.follow_paths()
        self._agenda.look()
        self._feeder.ask()
        for key, _ in self._selector.select(self._timeout()):
            if key.data is None:
                self._feed()
            else:
                self._serve(*key.data)
        self._connector.expire(monotonic())
        self._confirmations.look(monotonic())
        self._watch.refresh_after_failures()
        self._agenda.look()
        due = self._agenda.due(monotonic())
        self._feeder.catch_up(due)
        for session in due:
            if session.groups.behind and session in self._leases:
                self._watch.connect(session)
        self._move_misplaced()
        self._commit_when_due()
        self._handover.poll_idle()
        self._handover.poll_guards()

    def _timeout(self) -> float:
        """Seconds that the loop may sleep."""
        if self._failures:
            return 0.0
        now = monotonic()
        times = [
            self._leases.renew_at,
            self._claims.next_at(),
            self._connector.expire_at,
            self._feeder.next_at(now),
            self._handover.idle_poll_at,
            self._agenda.next_at(),
        ]
        if self._agenda.guarded:
            times.append(self._handover.guard_poll_at)
        return max(min(times) - now, 0.0)

    def _or_hold(self, act: Callable[[], None], *, then: Callable[[], None]) -> None:
        """Call ``act``; hold each sender with wrong values in Redis, and then call ``then``.

        ``act`` may have left out other senders when it failed: ``then`` does their part.
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
        """Claim pending senders when that is due; True while the job continues."""
        self._or_hold(self._take, then=self._take)
        return len(self._leases) > 0 or self._claims.expects()

    def _take(self) -> None:
        if self._claims.turn() or self._has_idle_neighbour():
            self._call_another()

    def _has_idle_neighbour(self) -> bool:
        """Whether another worker is idle while this worker has many senders.

        Looks every `NEIGHBOURS_EVERY_S`.
        """
        now = monotonic()
        if now < self._neighbours_at or len(self._leases) < MANY_SENDERS:
            return False
        self._neighbours_at = now + NEIGHBOURS_EVERY_S
        return jobs.workers_of(self._queue, self._jobs_client) > self._claims.workers

    def _feed(self) -> None:
        # A full worker rings for other workers, and reads its own ring entry.
        if self._feeder.take() and not self._leases.full:
            self._claims.again()

    # -- connections and commits ------------------------------------------------------------------

    def _serve(self, session: SenderSession, peer: Peer) -> None:
        """Continue with a connection whose socket is ready."""
        if self._connector.on_ready(session, peer) and self._leases.may_write(session):
            self._connector.flush(session, peer)

    def _move_misplaced(self) -> None:
        """Release the logs whose senders have another address: in order, also for slow peers."""
        while (session := self._watch.next_misplaced()) is not None:
            self._handover.release_misplaced(session)
            self._claims.again()

    def _commit_when_due(self) -> None:
        self._agenda.look()
        self._leases.commit(self._agenda.to_commit(monotonic()))

    def _call_another(self) -> None:
        if self._backlog.call_worker(self._queue, lost=False):
            jobs.enqueue_delivery(self._queue, self._jobs_client)
