"""Keeps the clocks in Redis going, from a thread: a slow Redis must not stop the event loop."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from time import monotonic

from clusterer.errors import StateUnavailable
from clusterer.listener.ledger import Heard, Ledger
from clusterer.runtime import forks
from clusterer.runtime.logs import LimitedLog, about_machine
from clusterer.runtime.rounds import Rounds
from clusterer.store.receipts import Receipts
from clusterer.store.watches import Flushed, FlushState, Watch

log = logging.getLogger(__name__)

_REPLACED_LOG_S = 60.0
_MEND_S = 5.0
"""Between two attempts to start clocks that Redis lost, or that are all of silent nodes."""
_STOP_S = 3.0
"""Longest wait for the thread's end: Redis has two seconds to answer."""


@dataclass(frozen=True, slots=True)
class Handover:
    """What the event loop saw, once per tick."""

    at: float
    """Monotonic time up to which all packets have been looked at."""
    heard: Mapping[Watch, Mapping[int, float]]
    """For every registration: machine_id → monotonic time of its last packet."""
    members: Mapping[Watch, frozenset[int]]
    """For every registration: the nodes that have a clock."""

    def on_top_of(self, older: Handover) -> Handover:
        """Merge with an earlier hand-over that Redis did not get."""
        heard = {
            watch: {**older.heard.get(watch, {}), **newer} for watch, newer in self.heard.items()
        }
        return Handover(self.at, heard, self.members)


class Clocks:
    """Registers an instance's modules, and notes in Redis who was heard.

    The thread only writes what the event loop handed over: while the loop stands still, nothing
    says that the instance was listening.
    """

    def __init__(self, server_id: int, receipts: Receipts) -> None:
        self._server_id = server_id
        self._receipts = receipts
        self._run = uuid.uuid4().hex
        self._cursor = "0-0"
        self._begun = False
        self._begin_lock = forks.lock()
        self._members: dict[Watch, frozenset[int]] = {}
        """The nodes of each registration's cluster."""
        self._clocked: dict[Watch, set[int]] = {}
        """Those of them that this run heard: they have clocks in Redis."""
        self._ledger = Ledger()
        self._pending: Handover | None = None
        self._pending_lock = forks.lock()
        self._wake = threading.Event()
        self._stopping = False
        self._away = False
        self._mend_at = 0.0
        self._limited = LimitedLog(log, _REPLACED_LOG_S)
        self._thread: threading.Thread | None = None

    def register(self, watch: Watch, members: frozenset[int]) -> None:
        """Register, with the nodes of its cluster; raises `StateUnavailable`. From any thread."""
        with self._begin_lock:
            if not self._begun or not self._receipts.register(watch, self._run, (), members):
                self._begin({**self._members, watch: members})
            self._members[watch] = members

    def start(self, deliver: Callable[[Flushed], object]) -> None:
        """Start the thread; it calls ``deliver`` with the reply to each flush that was noted or
        found nothing registered.

        An instance without registrations flushes as well: it can be tailed.
        """
        self._thread = threading.Thread(
            target=self._work, args=(deliver,), name="clusterer-receipts", daemon=True
        )
        self._thread.start()

    def hand_over(self, handover: Handover) -> None:
        """Take what the event loop saw. Never blocks."""
        with self._pending_lock:
            older = self._pending
            self._pending = handover.on_top_of(older) if older else handover
        self._wake.set()

    def stop(self) -> None:
        """End the thread."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(_STOP_S)

    # -- the thread -----------------------------------------------------------------------------

    def _work(self, deliver: Callable[[Flushed], object]) -> None:
        rounds = Rounds("receipts")
        while True:
            self._wake.wait()
            self._wake.clear()
            if self._stopping:
                return
            with self._pending_lock:
                handover, self._pending = self._pending, None
            if handover is not None:
                with rounds.guard():
                    self._attempt(handover, deliver)

    def _attempt(self, handover: Handover, deliver: Callable[[Flushed], object]) -> None:
        due = self._ledger.take(handover.heard, handover.at)
        try:
            reply = self._flush(handover, due)
        except StateUnavailable as error:
            self._put_back(handover, due)
            if not self._away:
                log.warning("module timeouts stand still: %s", error)
            self._away = True
            return
        except Exception:
            self._put_back(handover, due)
            raise
        if self._away:
            log.warning("module timeouts go on")
        self._away = False
        if reply.state is FlushState.REPLACED:
            self._limited.warning(
                "replaced",
                monotonic(),
                "another process runs as machine %d: no module timeouts here",
                self._server_id,
                extra=lambda: about_machine(self._server_id, ()),
            )
        else:
            deliver(reply)

    def _put_back(self, handover: Handover, due: Heard) -> None:
        """Keep what Redis did not get for the next round."""
        held = Handover(handover.at, self._ledger.forget(), handover.members)
        unsent = Handover(handover.at, due, handover.members).on_top_of(held)
        with self._pending_lock:
            newer = self._pending
            self._pending = newer.on_top_of(unsent) if newer else unsent

    def _flush(self, handover: Handover, due: Heard) -> Flushed:
        with self._begin_lock:
            if not self._begun:
                self._begin({**self._members, **handover.members})
        for watch, members in handover.members.items():
            if watch.cluster_id:
                self._follow(watch, members, due[watch])
        now = monotonic()
        reply = self._receipts.flush(
            self._server_id,
            self._run,
            {
                watch: _ages(heard, handover.members[watch], now)
                for watch, heard in due.items()
                if watch.cluster_id
            },
            age_ms=int((now - handover.at) * 1000),
            cursor=self._cursor,
        )
        if reply.state is FlushState.UNKNOWN:
            with self._begin_lock:
                self._begin({**self._members, **handover.members})
            log.warning(
                "Redis had no registrations of machine %d any more: registered again",
                self._server_id,
                extra=about_machine(self._server_id, ()),
            )
        elif reply.state is FlushState.NOTED:
            self._ledger.written(due)
            self._cursor = reply.cursor
            self._mend(reply.unusable, now)
        return reply

    def _follow(self, watch: Watch, members: frozenset[int], heard: Mapping[int, float]) -> None:
        """Have Redis start the clocks of nodes heard for the first time, and forget those gone."""
        clocked = self._clocked.setdefault(watch, set())
        left = self._members.get(watch, frozenset()) - members
        new = (heard.keys() & members) - clocked
        if new or left:
            self._receipts.enroll(watch, new, left)
            self._ledger.leave(watch, left)
            clocked |= new
            clocked -= left
        self._members[watch] = members

    def _mend(self, unusable: Collection[str], now: float) -> None:
        """Name keys that hold another type; start the clocks again that are lost with one.

        The set of a registration for which no node was heard is rightly empty.
        """
        empty = {watch.heard for watch in tuple(self._members) if not self._clocked.get(watch)}
        lost = [key for key in unusable if key not in empty]
        if not lost or now < self._mend_at:
            return
        self._mend_at = now + _MEND_S
        self._receipts.name_wrong(sorted(lost))
        for watch, clocked in self._clocked.items():
            if watch.heard in lost:
                self._receipts.enroll(watch, clocked, ())

    def _begin(self, members: Mapping[Watch, frozenset[int]]) -> None:
        """Register everything again. Needs the lock. Begins again later if it fails half-way."""
        self._begun = False
        self._cursor = self._receipts.begin(self._server_id, self._run)
        for watch, machine_ids in members.items():
            heard = self._clocked.get(watch, set()) & machine_ids
            self._receipts.register(watch, self._run, heard, machine_ids)
            self._members[watch] = machine_ids
        self._begun = True


def _ages(heard: Mapping[int, float], members: frozenset[int], now: float) -> dict[int, int]:
    return {
        machine_id: max(0, int((now - at) * 1000))
        for machine_id, at in heard.items()
        if machine_id in members
    }
