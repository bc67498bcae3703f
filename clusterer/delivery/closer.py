"""Closes the connections of released logs, each under a closing guard until the peer has read all.

Without the guard the next worker's connection would overtake bytes that the peer has not read.
"""

from __future__ import annotations

import logging
import selectors
import threading
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic

from clusterer.delivery.link import Link, LinkBroken
from clusterer.delivery.peer import Peer
from clusterer.errors import StateUnavailable
from clusterer.runtime.logs import about
from clusterer.runtime.rounds import Rounds
from clusterer.settings import Settings
from clusterer.store.deliveries import GUARD_MS
from clusterer.store.sessions import SessionStore

log = logging.getLogger(__name__)

_TICK_S = 0.05
RENEW_EVERY_S = GUARD_MS / 3000
LEAVE_AFTER_S = 3.0
"""Longest wait for peers when the process ends, whatever ``send_timeout``: a process has 4 s."""
LEAVE_WITHIN_S = 0.5
WRITE_WITHIN_S = GUARD_MS / 1000 * 0.7
"""Time after the sending of a renewal in which may be written: shorter than the guard's life."""


@dataclass(slots=True)
class _Closing:
    sender: int
    peer: Peer
    link: Link
    give_up_at: float
    renew_at: float
    write_until: float
    """The closing guard certainly exists until then."""
    finished: bool = False
    """Nothing is left to write and the peer has been told."""


class Closer:
    """A thread that finishes begun frames, closes, and waits for the peers' FIN.

    From `take` on, this thread alone uses the peers.
    """

    def __init__(self, settings: Settings, queue: str, token: str) -> None:
        self._timeout_s = settings.send_timeout
        self._store = SessionStore(settings, queue, token)
        self._lock = threading.Lock()
        self._incoming: list[_Closing] = []
        self._thread: threading.Thread | None = None
        self._leaving = False
        self._rounds = Rounds("closer")

    def take(self, sender: int, peers: list[Peer], asked_at: float) -> None:
        """Take over the closing peers whose guards a release has set.

        ``asked_at``: a time before the release was sent (monotonic seconds). The guards may have
        ended if the reply came late.
        """
        give_up_at = monotonic() + self._timeout_s
        renew_at, write_until = asked_at + RENEW_EVERY_S, asked_at + WRITE_WITHIN_S
        taken = [
            _Closing(sender, peer, peer.link, give_up_at, renew_at, write_until)
            for peer in peers
            if peer.link is not None
        ]
        if not taken:
            return
        with self._lock:
            self._incoming += taken
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._run, name="clusterer-closer", daemon=True
                )
                self._thread.start()

    def join(self) -> None:
        """Wait until all connections are closed; at most ``send_timeout`` and a bit, or 3.5 s.

        Peers that take longer are given up: what they have not acknowledged is sent to them again.
        """
        thread = self._thread
        if thread is not None:
            thread.join(min(self._timeout_s, LEAVE_AFTER_S))
            self._leaving = True
            thread.join(LEAVE_WITHIN_S)

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            closing: list[_Closing] = []
            while True:
                with self._lock:
                    fresh, self._incoming = self._incoming, []
                    if not fresh and not closing:
                        self._thread = None
                        return
                for item in fresh:
                    with self._rounds.guard():
                        selector.register(item.link, selectors.EVENT_READ, item)
                        self._turn(item)
                closing += fresh
                selector.select(_TICK_S)
                closing = [item for item in closing if not self._done(selector, item)]

    def _done(self, selector: selectors.BaseSelector, item: _Closing) -> bool:
        over = True  # also if the turn raises an unexpected error
        with self._rounds.guard():
            over = self._turn(item) or self._leaving or monotonic() >= item.give_up_at
        if over:
            with self._rounds.guard():
                with suppress(KeyError):  # not registered
                    selector.unregister(item.link)
                item.peer.rewind()
                item.link.close()
                self._end_guard(item)
        return over

    def _turn(self, item: _Closing) -> bool:
        """Continue with one connection; True once the peer has closed it."""
        self._renew(item)
        if monotonic() >= item.give_up_at:
            return True
        try:
            if not item.finished and monotonic() < item.write_until and item.peer.flush():
                item.finished = True
                item.link.finish_writing()
            item.link.check()
        except LinkBroken:
            return True
        return False

    def _renew(self, item: _Closing) -> None:
        now = monotonic()
        if now < item.renew_at:
            return
        item.renew_at = now + RENEW_EVERY_S
        try:
            peer = item.peer
            kept_from = peer.acknowledged_offset() + 1
            if self._store.renew_guard(item.sender, peer.destination, kept_from):
                item.write_until = now + WRITE_WITHIN_S
            else:
                item.give_up_at = 0.0  # another worker may be connected: write nothing
        except StateUnavailable as error:
            text = "sender %s: closing guard of node %s not renewed: %s"
            _warn(item, text, item.peer.node.machine_id, error)

    def _end_guard(self, item: _Closing) -> None:
        peer = item.peer
        moved = None if peer.is_recorded() else peer.move()
        counters = peer.take_counters()
        try:
            if not self._store.end_guard(item.sender, peer.destination, moved, counters):
                _say_unknown(item)
        except StateUnavailable as error:
            text = "sender %s: closing guard of node %s not deleted, it expires: %s"
            _warn(item, text, peer.node.machine_id, error)


def _say_unknown(item: _Closing) -> None:
    """Log which packets may be missing: another worker may have continued behind them."""
    peer = item.peer
    if peer.committed_offset < peer.recorded_offset:
        lost = peer.committed_offset + 1, peer.recorded_offset
        text = "sender %s: packets %s to %s may not have arrived at node %s (cluster %s, %s)"
        _warn(item, text, *lost, peer.node.machine_id, peer.key, peer.node.url)


def _warn(item: _Closing, text: str, *details: object) -> None:
    """Log ``text`` about a connection; its first argument is the sender."""
    log.warning(text, item.sender, *details, extra=about(item.peer.node, sender=item.sender))
