"""Makes, watches and ends the connections of all sessions, and reports nodes that failed."""

from __future__ import annotations

import logging
import selectors
from collections.abc import Collection
from math import inf
from time import monotonic

from clusterer.delivery.confirmations import Confirmations
from clusterer.delivery.failures import Failures
from clusterer.delivery.link import Link, LinkBroken, LocalFault, UnaskedBytes
from clusterer.delivery.peer import Peer
from clusterer.delivery.peer_states import PeerEvent, PeerState
from clusterer.delivery.session import SenderSession
from clusterer.errors import PeerUnreachable
from clusterer.runtime.descriptors import delivery_room
from clusterer.runtime.logs import about
from clusterer.runtime.routes import is_local
from clusterer.settings import Settings

log = logging.getLogger(__name__)

RETRY_S = 0.2
"""Pause before a node that is still held to be up is tried again."""

STRIKES = 2
"""Connections in a row that a peer may end young, or with packets unsent, until it has failed."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
"""Pause before a node gets another connection that has written on the last one; twice as long each
time that it does so again."""

_ENDED = "sender %s: connection to node %s (cluster %s, %s) ended: %s"
_CLOSED = "sender %s: connection to node %s (cluster %s, %s) closed: %s"
_NOT_NOW = "sender %s: no connection to node %s (cluster %s, %s) now: %s"


class Connector:
    """Owns every `Link` of a session while the worker holds the lease."""

    def __init__(
        self,
        settings: Settings,
        failures: Failures,
        confirmations: Confirmations,
        selector: selectors.BaseSelector,
    ) -> None:
        self._timeout_s = settings.send_timeout
        self._failures = failures
        self._confirmations = confirmations
        self._selector = selector
        self._watched: dict[Peer, SenderSession] = {}
        self._pressed: set[Peer] = set()
        """Connections whose peer has something to do: accept, or read."""
        self.expire_at = inf
        """When `expire` has something to check (monotonic seconds), at the earliest."""

    def open(self, session: SenderSession, peer: Peer, source: str | None) -> None:
        """Start connecting to a node."""
        peer.attempted, peer.source = peer.node, source
        try:
            self._check_room()
            link = Link(peer.node.address, source, self._timeout_s)
        except PeerUnreachable as error:
            self._fail(session, peer, str(error), monotonic())
            return
        except LocalFault as error:
            self._wait(session, peer, str(error))
            return
        peer.link = link
        self._watched[peer] = session
        self._press(peer)
        self._selector.register(link, selectors.EVENT_WRITE, (session, peer))

    def watch(self, peer: Peer) -> None:
        """Wait for room in the socket while the peer has an outbox."""
        link, blocked = peer.link, peer.state is PeerState.BLOCKED
        if link is None or not peer.connected or blocked == (peer in self._pressed):
            return
        if blocked:
            self._press(peer)
        else:
            self._pressed.discard(peer)
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if blocked else 0)
        self._selector.modify(link, events, self._selector.get_key(link).data)

    def let_go(self, peer: Peer) -> None:
        """Stop watching a connection, and leave the connection open."""
        self._pressed.discard(peer)
        if self._watched.pop(peer, None) is not None and peer.link is not None:
            self._selector.unregister(peer.link)

    def close(self, peer: Peer) -> None:
        """Close a connection at once."""
        self.let_go(peer)
        if peer.link is not None:
            peer.link.close()
            peer.forget_link()

    def close_all(self, session: SenderSession, but: Collection[Peer] = ()) -> None:
        """Close all connections of a session at once, except those of the closer."""
        for peer in session.peers.values():
            if peer not in but:
                self.close(peer)

    def _end(self, peer: Peer) -> None:
        """Close a broken connection; what did not arrive is to be offered again."""
        link = peer.link
        self.let_go(peer)
        peer.rewind()
        if link is not None:
            link.close()

    def broken(self, session: SenderSession, peer: Peer, error: LinkBroken) -> None:
        """An established connection has ended: connect again, or report the node."""
        writes = isinstance(error, UnaskedBytes)
        early = peer.young() or peer.state is PeerState.BLOCKED or writes
        began_at = max(_began_at(peer), monotonic() - self._timeout_s)
        self._end(peer)
        peer.strikes = peer.strikes + 1 if early else 0
        failed = error.unreachable or peer.strikes >= STRIKES
        if failed:
            self._fail(session, peer, str(error), began_at)
        if writes:
            self._put_off(session, peer, error, failed=failed)
        elif not failed:
            _log(logging.INFO, _ENDED, session, peer, str(error))

    @staticmethod
    def _put_off(session: SenderSession, peer: Peer, error: LinkBroken, *, failed: bool) -> None:
        """Pause connections to a node that writes where it has to read; each pause is longer."""
        pause_s = min(max(peer.pause_s * 2, FIRST_PAUSE_S), LONGEST_PAUSE_S)
        peer.pause_s, peer.retry_at = pause_s, monotonic() + pause_s
        if not failed:
            peer.counters["failed"] += 1
            session.count(1)
        detail = f"{error}; connecting again in {pause_s:g} s"
        _log(logging.WARNING, _CLOSED, session, peer, detail)

    def just_opened(self, within_s: float) -> bool:
        """Whether a connection that began less than ``within_s`` ago is still being made."""
        since = monotonic() - within_s
        return any(
            peer.link and not peer.connected and peer.link.since > since for peer in self._pressed
        )

    def expire(self, now: float) -> None:
        """Give up connections that made no progress for ``send_timeout``."""
        if now < self.expire_at:
            return
        since = now - self._timeout_s
        late = [peer for peer in self._pressed if peer.link and peer.link.progress_at <= since]
        for peer in late:
            session = self._watched[peer]
            what = "took nothing" if peer.state is PeerState.BLOCKED else "did not answer"
            began_at = _began_at(peer)
            self._end(peer)
            self._fail(session, peer, f"{what} for {self._timeout_s:g} s", began_at)
            session.regroup()
        began = (peer.link.progress_at for peer in self._pressed if peer.link)
        self.expire_at = min(began, default=inf) + self._timeout_s

    def _press(self, peer: Peer) -> None:
        """Note that a peer has something to do, from now on."""
        self._pressed.add(peer)
        if peer.link is not None:
            self.expire_at = min(self.expire_at, peer.link.progress_at + self._timeout_s)

    def on_ready(self, session: SenderSession, peer: Peer) -> bool:
        """Look at a connection whose socket is ready; True if the outbox can be written."""
        link = peer.link
        if link is None:
            return False
        if not peer.connected:
            self._established(session, peer, link)
            return False
        try:
            link.check()
        except LinkBroken as error:
            self.broken(session, peer, error)
            session.regroup()
        return peer.state is PeerState.BLOCKED

    def flush(self, session: SenderSession, peer: Peer) -> None:
        """Write more of the outbox."""
        try:
            if peer.flush():
                self.watch(peer)
                session.regroup()
            session.count(1)
        except LinkBroken as error:
            self.broken(session, peer, error)
            session.regroup()

    def _established(self, session: SenderSession, peer: Peer, link: Link) -> None:
        began_at = link.since
        try:
            link.finish_connecting()
        except PeerUnreachable as error:
            self._end(peer)
            self._fail(session, peer, str(error), began_at)
        else:
            peer.change(PeerEvent.CONNECTED)
            self.watch(peer)
            self._confirmations.connected(session, peer, began_at, link.since)
            peer.attempted = None  # from now on an attempt is a write, to the node as it is then
        session.regroup()

    def _check_room(self) -> None:
        if len(self._watched) >= delivery_room():
            raise LocalFault("this process may not have more open (ulimit -n, LimitNOFILE=)")

    @staticmethod
    def _wait(session: SenderSession, peer: Peer, reason: str) -> None:
        """Try again later, and report no failure of the node."""
        peer.retry_at = monotonic() + RETRY_S
        _log(logging.WARNING, _NOT_NOW, session, peer, reason)

    def _fail(self, session: SenderSession, peer: Peer, reason: str, began_at: float) -> None:
        if peer.source is not None and not is_local(peer.source):
            self._wait(session, peer, f"{peer.source} is no address of this host now")
            return
        peer.counters["failed"] += 1
        peer.strikes = 0
        peer.retry_at = monotonic() + RETRY_S
        session.count(1)
        self._failures.note(session, peer, reason, began_at)


def _began_at(peer: Peer) -> float:
    """Return since when the peer has not answered (monotonic seconds)."""
    return peer.link.progress_at if peer.link is not None else monotonic()


def _log(level: int, text: str, session: SenderSession, peer: Peer, detail: str) -> None:
    """Log an event of one connection."""
    node = peer.node
    place = session.sender, node.machine_id, peer.key, node.url
    log.log(level, text, *place, detail, extra=about(node, sender=session.sender))
