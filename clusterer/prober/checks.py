"""Checks: can this host connect to a node? Many at once, none waits for another.

A check makes up to four TCP connects, 0.2 s apart, until the node accepts one: a lossy link loses
some of them. A refused connect ends the check at once: the node is not reached. A failure of this
host itself is no evidence, and neither is a check that a stopped process concludes too late.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from time import monotonic

from clusterer.delivery.link import SELF_CONNECTED, Link, LocalFault
from clusterer.errors import PeerUnreachable
from clusterer.membership import Node
from clusterer.runtime.descriptors import prober_room

AGAIN_S = 0.2
"""Between two connects of a check."""

CONNECTS = 4
"""Connects of a check, at most."""

LATE_S = 0.5
"""Time after the window of a check from which on its result is no evidence."""

AT_ONCE = 100
"""Checks that run at the same time, not counting urgent checks; further checks wait."""

URGENT_AT_ONCE = 100
"""Urgent checks beside them."""

STARTED_AT_ONCE = 20
"""Checks that one turn begins: many checks at once must not delay deliveries of this process."""


@dataclass(frozen=True, slots=True)
class Found:
    """Result of a check."""

    reached: bool | None
    """None: no evidence."""
    began: float = 0.0
    """When the check began (monotonic seconds)."""
    reason: str = ""
    """Why the node was not reached, for people."""


Done = Callable[[Found], object]


@dataclass(eq=False, slots=True)
class _Check:
    node: Node
    source: str | None
    window_s: float
    done: Done
    began: float
    """When the check began, or, while the check waits, was ordered (monotonic seconds)."""
    connects: int = 0
    """Connects begun so far."""
    links: set[Link] = field(default_factory=set)
    reason: str = ""
    """Why the last connect failed."""
    hindered: bool = False
    """Whether a connect failed by this host's own fault."""

    @property
    def ends_at(self) -> float:
        return self.began + self.window_s

    @property
    def again_at(self) -> float:
        return self.began + AGAIN_S * self.connects if self.connects < CONNECTS else inf


class Checks:
    """The checks of one prober. For one thread."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._running: set[_Check] = set()
        self._waiting: deque[_Check] = deque()
        self._urgent: deque[_Check] = deque()
        """Urgent checks that wait. The newest begins first: older ones may be too late already."""

    def __len__(self) -> int:
        return len(self._running) + len(self._urgent) + len(self._waiting)

    def start(
        self, node: Node, source: str | None, window_s: float, done: Done, *, urgent: bool = False
    ) -> None:
        """Check ``node`` from ``source`` (an IP; None: any) for up to ``window_s`` seconds.

        ``done`` is called once, by a later `turn`. An ``urgent`` check begins before others; an
        urgent check that waits for longer than its window finds nothing.
        """
        check = _Check(node, source, window_s, done, began=monotonic())
        (self._urgent if urgent else self._waiting).append(check)

    def turn(self, timeout_s: float) -> None:
        """Begin what is due, wait up to ``timeout_s`` for an answer, conclude what is over."""
        now = monotonic()
        for _ in range(STARTED_AT_ONCE):
            if not self._has_room():
                break
            check = self._urgent.pop() if self._urgent else self._waiting.popleft()
            check.began = now
            self._running.add(check)
        for check in [check for check in self._running if check.again_at <= now]:
            self._connect(check)
        wait_s = min(timeout_s, self._next_at() - monotonic())
        for key, _ in self._selector.select(max(0.0, wait_s)):
            self._answered(*key.data)
        now = monotonic()
        for check in [check for check in self._running if check.ends_at <= now]:
            self._expire(check, now)
        while self._urgent and self._urgent[0].ends_at <= now:
            self._urgent.popleft().done(Found(None))

    def drop(self) -> None:
        """End all checks: none is evidence."""
        waiting = [*self._urgent, *self._waiting]
        self._urgent.clear()
        self._waiting.clear()
        for check in waiting:
            check.done(Found(None))
        for check in list(self._running):
            self._end(check, Found(None))

    def close(self) -> None:
        """Close all sockets and the selector."""
        for check in list(self._running):
            self._forget(check)
        self._urgent.clear()
        self._waiting.clear()
        self._selector.close()

    def _next_at(self) -> float:
        if self._has_room():
            return 0.0
        return min((min(check.ends_at, check.again_at) for check in self._running), default=inf)

    def _has_room(self) -> bool:
        """Whether the first check that waits can begin: each may need `CONNECTS` descriptors."""
        if not self._urgent and not self._waiting:
            return False
        most = min(AT_ONCE + URGENT_AT_ONCE, prober_room() // CONNECTS)
        if not self._urgent and most > 1:  # urgent checks have half of the room for themselves
            most = min(AT_ONCE, most // 2)
        return len(self._running) < most

    def _connect(self, check: _Check) -> None:
        check.connects += 1
        try:
            link = Link(check.node.address, check.source, check.window_s)
        except LocalFault as error:
            check.hindered, check.reason = True, str(error)
        except PeerUnreachable as error:
            check.reason = str(error)
            if os.strerror(errno.ECONNREFUSED) in check.reason:
                self._end(check, Found(False, check.began, check.reason))
        else:
            self._watch(check, link)

    def _watch(self, check: _Check, link: Link) -> None:
        try:
            self._selector.register(link, selectors.EVENT_WRITE, (check, link))
        except OSError as error:  # the kernel has no room for another one
            link.close()
            check.hindered, check.reason = True, str(error)
        else:
            check.links.add(link)

    def _answered(self, check: _Check, link: Link) -> None:
        if link not in check.links:  # another connect of the same check has concluded it
            return
        code = link.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        reached, reason = not code, os.strerror(code) if code else ""
        if reached:
            try:
                link.finish_connecting()
            except PeerUnreachable:
                reached, code, reason = False, errno.ECONNREFUSED, SELF_CONNECTED
        self._close(check, link)
        if monotonic() > check.ends_at + LATE_S:
            self._end(check, Found(None))
        elif reached:
            self._end(check, Found(True, check.began))
        elif code == errno.ECONNREFUSED:
            self._end(check, Found(False, check.began, reason))
        else:
            check.reason = reason

    def _expire(self, check: _Check, now: float) -> None:
        if check.hindered or now > check.ends_at + LATE_S:
            self._end(check, Found(None, check.began, check.reason))
        else:
            reason = check.reason or f"no answer within {check.window_s:g} s"
            self._end(check, Found(False, check.began, reason))

    def _end(self, check: _Check, found: Found) -> None:
        self._forget(check)
        check.done(found)

    def _forget(self, check: _Check) -> None:
        self._running.discard(check)
        for link in list(check.links):
            self._close(check, link)

    def _close(self, check: _Check, link: Link) -> None:
        check.links.discard(link)
        self._selector.unregister(link)
        link.close()
