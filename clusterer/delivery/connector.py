"""Makes, watches and ends the connections of all drains, and reports nodes that failed."""

from __future__ import annotations

import logging
import resource
import selectors
from collections.abc import Callable, Collection
from math import inf
from time import monotonic

from clusterer.delivery.destination import Destination
from clusterer.delivery.drain import Drain
from clusterer.delivery.link import Link, LinkBroken, LocalTrouble, UnaskedBytes
from clusterer.errors import PeerUnreachable
from clusterer.membership import Event
from clusterer.runtime.logs import about
from clusterer.runtime.routes import is_local
from clusterer.settings import Settings
from clusterer.store import Cause, NodeStore

log = logging.getLogger(__name__)

RETRY_S = 0.2
"""Pause before a node that is still held to be up is tried again."""

STRIKES = 2
"""Connections in a row that a peer may end young, or with packets unsent, until it has failed."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
"""Pause before a node gets another connection that has written on the last one; twice as long each
time that it does so again."""

MayWrite = Callable[[Drain], bool]


OTHER_FILES = 64
"""Descriptors kept free for all but connections to peers: Redis, logs, programs."""


def _room() -> int:
    """Return how many connections this process may have."""
    return max(resource.getrlimit(resource.RLIMIT_NOFILE)[0] - OTHER_FILES, 1)


class Connector:
    """Owner of every `Link` while its drain is held."""

    def __init__(
        self, settings: Settings, nodes: NodeStore, selector: selectors.BaseSelector
    ) -> None:
        self._timeout_s = settings.send_timeout
        self._nodes = nodes
        self._selector = selector
        self._watched: dict[Destination, Drain] = {}
        self._pressed: set[Destination] = set()
        """Those whose peer has something to do: accept, or read."""
        self._expire_at = inf
        """No such connection runs out of time before (monotonic seconds): progress moves it on."""
        self.may_write: MayWrite = lambda drain: False
        self.failures = 0
        """Reported send failures; the node's state has changed whenever this has grown."""

    def open(self, drain: Drain, destination: Destination, source: str | None) -> None:
        """Start connecting to a node."""
        destination.attempted, destination.source = destination.node, source
        try:
            self._check_room()
            link = Link(destination.node.address, source, self._timeout_s)
        except PeerUnreachable as error:
            self._fail(drain, destination, str(error))
            return
        except LocalTrouble as error:
            self._wait(drain, destination, str(error))
            return
        destination.link = link
        self._watched[destination] = drain
        self._press(destination)
        self._selector.register(
            link, selectors.EVENT_WRITE, lambda: self._on_ready(drain, destination)
        )

    def watch(self, destination: Destination) -> None:
        """Wait for room in the socket as long as there is an outbox."""
        link, pressed = destination.link, destination.outbox is not None
        if link is None or not link.connected or pressed == (destination in self._pressed):
            return
        if pressed:
            self._press(destination)
        else:
            self._pressed.discard(destination)
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if pressed else 0)
        self._selector.modify(link, events, self._selector.get_key(link).data)

    def let_go(self, destination: Destination) -> None:
        """Stop watching a connection without closing it."""
        self._pressed.discard(destination)
        if self._watched.pop(destination, None) is not None and destination.link is not None:
            self._selector.unregister(destination.link)

    def close(self, destination: Destination) -> None:
        """Close a connection at once."""
        self.let_go(destination)
        if destination.link is not None:
            destination.link.close()
            destination.forget_link()

    def close_all(self, drain: Drain, but: Collection[Destination] = ()) -> None:
        """Close all connections of a drain at once, except those that are somebody else's now."""
        for destination in drain.destinations.values():
            if destination not in but:
                self.close(destination)

    def _end(self, destination: Destination) -> None:
        """Close a broken connection; what did not arrive is to be offered again."""
        link = destination.link
        self.let_go(destination)
        destination.rewind()
        if link is not None:
            link.close()

    def broken(self, drain: Drain, destination: Destination, error: LinkBroken) -> None:
        """An established connection has ended: connect again, or report the node."""
        writes = isinstance(error, UnaskedBytes)
        early = destination.young() or destination.outbox is not None or writes
        self._end(destination)
        destination.strikes = destination.strikes + 1 if early else 0
        failed = error.unreachable or destination.strikes >= STRIKES
        if failed:
            self._fail(drain, destination, str(error))
        if writes:
            self._put_off(drain, destination, error, failed=failed)
        elif not failed:
            log.info(
                "cluster %s machine %s (%s): connection of machine %s ended: %s",
                destination.key,
                destination.node.machine_id,
                destination.node.url,
                drain.sender,
                error,
                extra=about(destination.node, sender=drain.sender),
            )

    @staticmethod
    def _put_off(
        drain: Drain, destination: Destination, error: LinkBroken, *, failed: bool
    ) -> None:
        """Leave a node alone for a while, longer each time, that writes where it has to read."""
        pause_s = min(max(destination.pause_s * 2, FIRST_PAUSE_S), LONGEST_PAUSE_S)
        destination.pause_s, destination.retry_at = pause_s, monotonic() + pause_s
        if not failed:
            destination.counters["failed"] += 1
            drain.count(1)
        log.warning(
            "cluster %s machine %s (%s): connection of machine %s closed: %s; "
            "connecting again in %g s",
            destination.key,
            destination.node.machine_id,
            destination.node.url,
            drain.sender,
            error,
            pause_s,
            extra=about(destination.node, sender=drain.sender),
        )

    def just_opened(self, within_s: float) -> bool:
        """Whether a connection that began less than ``within_s`` ago is still being made."""
        since = monotonic() - within_s
        return any(d.link and not d.link.connected and d.link.since > since for d in self._pressed)

    def next_deadline(self) -> float:
        """Return when connections are to be looked at that may have run out of time."""
        return self._expire_at

    def expire(self, now: float) -> None:
        """Give up connections that made no progress for ``send_timeout``."""
        if now < self._expire_at:
            return
        since = now - self._timeout_s
        late = [d for d in self._pressed if d.link and d.link.progress_at <= since]
        for destination in late:
            drain = self._watched[destination]
            what = "took nothing" if destination.outbox else "did not answer"
            self._end(destination)
            self._fail(drain, destination, f"{what} for {self._timeout_s:g} s")
            drain.regroup()
        began = (d.link.progress_at for d in self._pressed if d.link)
        self._expire_at = min(began, default=inf) + self._timeout_s

    def _press(self, destination: Destination) -> None:
        """Note that a peer has something to do, from now on."""
        self._pressed.add(destination)
        if destination.link is not None:
            self._expire_at = min(self._expire_at, destination.link.progress_at + self._timeout_s)

    def _on_ready(self, drain: Drain, destination: Destination) -> None:
        link = destination.link
        if link is None:
            return
        try:
            if not link.connected:
                self._established(drain, destination, link)
                return
            link.check()
            if destination.outbox is None or not self.may_write(drain):
                return
            if destination.flush():
                self.watch(destination)
                drain.regroup()
            drain.count(1)
        except LinkBroken as error:
            self.broken(drain, destination, error)
            drain.regroup()

    def _established(self, drain: Drain, destination: Destination, link: Link) -> None:
        try:
            link.finish_connecting()
        except PeerUnreachable as error:
            self._end(destination)
            self._fail(drain, destination, str(error))
        else:
            self.watch(destination)
        drain.regroup()

    def _check_room(self) -> None:
        if len(self._watched) >= _room():
            raise LocalTrouble("this process may not have more open (ulimit -n, LimitNOFILE=)")

    @staticmethod
    def _wait(drain: Drain, destination: Destination, reason: str) -> None:
        """Try again later, and blame nobody."""
        destination.retry_at = monotonic() + RETRY_S
        log.warning(
            "cluster %s machine %s (%s): no connection of machine %s now: %s",
            destination.key,
            destination.node.machine_id,
            destination.node.url,
            drain.sender,
            reason,
            extra=about(destination.node, sender=drain.sender),
        )

    def _fail(self, drain: Drain, destination: Destination, reason: str) -> None:
        if destination.source is not None and not is_local(destination.source):
            self._wait(drain, destination, f"{destination.source} is no address of this host now")
            return
        destination.counters["failed"] += 1
        destination.strikes = 0
        destination.retry_at = monotonic() + RETRY_S
        drain.count(1)
        self.failures += 1
        seen = destination.attempted or destination.node
        self._nodes.observe(
            seen, Event.SEND_FAILED, Cause(f"delivery of machine {drain.sender}", reason)
        )
