"""Last-seen times in Redis, written by a thread: a slow Redis never blocks the event loop."""

from __future__ import annotations

import asyncio
import logging
import threading
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from time import monotonic

from clusterer.errors import StateUnavailable
from clusterer.listener.last_seen_buffer import LastSeen, LastSeenBuffer
from clusterer.runtime import forks
from clusterer.runtime.logs import LimitedLog, about_machine_id
from clusterer.runtime.rounds import Rounds
from clusterer.store.receipts import Receipts
from clusterer.store.watches import Flushed, FlushState, Watch

log = logging.getLogger(__name__)

_REPLACED_LOG_S = 60.0
_MEND_S = 5.0
"""Between two attempts to write last-seen times that Redis lost."""
_STOP_S = 3.0
"""Longest wait for the thread's end: Redis has two seconds to answer."""


async def all_read() -> float:
    """Return a monotonic time up to which all received bytes were looked at.

    A slow callback or a stopped process may keep the loop from reading. Packets that arrived in
    that time must count before a timeout is judged. A connection with parked packets needs one
    turn of the loop to resume, one turn to poll its socket, and one turn to read.
    """
    now = monotonic()
    for _ in range(3):
        await asyncio.sleep(0)
    return now


@dataclass(frozen=True, slots=True)
class TickReport:
    """The last-seen times of one tick of the event loop."""

    at: float
    """Monotonic time up to which all packets have been looked at."""
    last_seen: Mapping[Watch, Mapping[int, float]]
    """For every registration: machine_id → monotonic time of its last packet."""
    members: Mapping[Watch, frozenset[int]]
    """For every registration: the nodes of its cluster."""

    def after(self, older: TickReport) -> TickReport:
        """Merge with an older report that Redis did not get."""
        times = {
            watch: {**older.last_seen.get(watch, {}), **newer}
            for watch, newer in self.last_seen.items()
        }
        return TickReport(self.at, times, self.members)


class LastSeenWriter:
    """Registers an instance's modules in Redis, and writes heartbeats and last-seen times.

    The thread writes only the reports of the event loop: while the loop is blocked, the instance
    has no heartbeat.
    """

    def __init__(self, server_id: int, receipts: Receipts) -> None:
        self._server_id = server_id
        self._receipts = receipts
        self._run = uuid.uuid4().hex
        self._last_notice = "0-0"
        self._begun = False
        self._begin_lock = forks.lock()
        self._members: dict[Watch, frozenset[int]] = {}
        """The nodes of each registration's cluster."""
        self._enrolled: dict[Watch, set[int]] = {}
        """The nodes among them that have a last-seen time in Redis."""
        self._buffer = LastSeenBuffer()
        self._pending: TickReport | None = None
        self._pending_lock = forks.lock()
        self._signal = threading.Event()
        """Set when a report waits for the thread, or the thread has to end."""
        self._stopping = False
        self._away = False
        self._mend_at = 0.0
        self._limited = LimitedLog(log, _REPLACED_LOG_S)
        self._thread: threading.Thread | None = None

    def register(self, watch: Watch, members: frozenset[int]) -> None:
        """Register a module in Redis; raises `StateUnavailable`. From any thread."""
        with self._begin_lock:
            if not self._begun or not self._receipts.register(watch, self._run, (), members):
                self._begin({**self._members, watch: members})
            self._members[watch] = members

    def start(self, deliver: Callable[[Flushed], object]) -> None:
        """Start the thread; the thread calls ``deliver`` with Redis's reply to each report.

        An instance without registrations reports as well: its packets can be captured.
        """
        self._thread = threading.Thread(
            target=self._work, args=(deliver,), name="clusterer-receipts", daemon=True
        )
        self._thread.start()

    def report(self, report: TickReport) -> None:
        """Queue a report for the thread. Never blocks."""
        with self._pending_lock:
            older = self._pending
            self._pending = report.after(older) if older else report
        self._signal.set()

    def stop(self) -> None:
        """End the thread."""
        self._stopping = True
        self._signal.set()
        if self._thread is not None:
            self._thread.join(_STOP_S)

    # -- the thread -----------------------------------------------------------------------------

    def _work(self, deliver: Callable[[Flushed], object]) -> None:
        rounds = Rounds("receipts")
        while True:
            self._signal.wait()
            self._signal.clear()
            if self._stopping:
                return
            with self._pending_lock:
                report, self._pending = self._pending, None
            if report is not None:
                with rounds.guard():
                    self._attempt(report, deliver)

    def _attempt(self, report: TickReport, deliver: Callable[[Flushed], object]) -> None:
        due = self._buffer.take(report.last_seen, report.at)
        try:
            reply = self._flush(report, due)
        except StateUnavailable as error:
            self._put_back(report, due)
            if not self._away:
                log.warning(
                    "instance %d: module timeout tracking paused: %s", self._server_id, error
                )
            self._away = True
            return
        except Exception:
            self._put_back(report, due)
            raise
        if self._away:
            log.warning("instance %d: module timeout tracking resumed", self._server_id)
        self._away = False
        if reply.state is FlushState.REPLACED:
            self._limited.warning(
                "replaced",
                monotonic(),
                "instance %d: another process has this machine_id: no module timeouts in this "
                "process",
                self._server_id,
                extra=lambda: about_machine_id(self._server_id, ()),
            )
        else:
            deliver(reply)

    def _put_back(self, report: TickReport, due: LastSeen) -> None:
        """Keep times that Redis did not get for the next round."""
        held = TickReport(report.at, self._buffer.forget(), report.members)
        unsent = TickReport(report.at, due, report.members).after(held)
        with self._pending_lock:
            newer = self._pending
            self._pending = newer.after(unsent) if newer else unsent

    def _flush(self, report: TickReport, due: LastSeen) -> Flushed:
        with self._begin_lock:
            if not self._begun:
                self._begin({**self._members, **report.members})
        for watch, members in report.members.items():
            if watch.cluster_id:
                self._follow(watch, members, due[watch])
        now = monotonic()
        reply = self._receipts.flush(
            self._server_id,
            self._run,
            {
                watch: _ages(times, report.members[watch], now)
                for watch, times in due.items()
                if watch.cluster_id
            },
            age_ms=int((now - report.at) * 1000),
            last_notice=self._last_notice,
        )
        if reply.state is FlushState.UNKNOWN:
            with self._begin_lock:
                self._begin({**self._members, **report.members})
            log.warning(
                "instance %d: registrations missing in Redis, registered again",
                self._server_id,
                extra=about_machine_id(self._server_id, ()),
            )
        elif reply.state is FlushState.NOTED:
            self._buffer.written(due)
            self._last_notice = reply.last_notice
            self._mend(reply.unusable, now)
        return reply

    def _follow(self, watch: Watch, members: frozenset[int], times: Mapping[int, float]) -> None:
        """Enroll nodes with their first packet, and remove nodes that left the cluster."""
        enrolled = self._enrolled.setdefault(watch, set())
        left = self._members.get(watch, frozenset()) - members
        new = (times.keys() & members) - enrolled
        if new or left:
            self._receipts.enroll(watch, new, left)
            self._buffer.leave(watch, left)
            enrolled |= new
            enrolled -= left
        self._members[watch] = members

    def _mend(self, unusable: Collection[str], now: float) -> None:
        """Log keys of a wrong type, and enroll the nodes whose times were lost with such a key.

        A registration without a packet from a node rightly has no key.
        """
        empty = {watch.last_seen for watch in tuple(self._members) if not self._enrolled.get(watch)}
        lost = [key for key in unusable if key not in empty]
        if not lost or now < self._mend_at:
            return
        self._mend_at = now + _MEND_S
        self._receipts.name_wrong(sorted(lost))
        for watch, enrolled in self._enrolled.items():
            if watch.last_seen in lost:
                self._receipts.enroll(watch, enrolled, ())

    def _begin(self, members: Mapping[Watch, frozenset[int]]) -> None:
        """Register all modules again. Needs the lock. The next round repeats a failed attempt."""
        self._begun = False
        self._last_notice = self._receipts.begin(self._server_id, self._run)
        for watch, machine_ids in members.items():
            enrolled = self._enrolled.get(watch, set()) & machine_ids
            self._receipts.register(watch, self._run, enrolled, machine_ids)
            self._members[watch] = machine_ids
        self._begun = True


def _ages(times: Mapping[int, float], members: frozenset[int], now: float) -> dict[int, int]:
    return {
        machine_id: max(0, int((now - at) * 1000))
        for machine_id, at in times.items()
        if machine_id in members
    }
