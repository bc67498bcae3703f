"""Limits of inbound connections: in total and per address. Nodes of the table come first."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from ipaddress import IPv6Address, ip_address
from time import monotonic
from typing import Generic, Protocol, TypeVar

from clusterer.listener.counters import Counters
from clusterer.membership.addresses import normalised_ip
from clusterer.membership.views import Views
from clusterer.runtime.descriptors import UNLIMITED, room
from clusterer.runtime.logs import LimitedLog
from clusterer.settings import Settings

log = logging.getLogger(__name__)

KNOWN_PATIENCE = 8
"""A known node has this many times max_message_time for its first frame: TCP repeats a lost segment
seven times in half a minute."""

_SHARE_KEPT = 0.75
_LEAST_KEPT = 8
_SHORTAGE_S = 60.0
"""After the process ran out of descriptors: the share of the open connections that stays open, the
least number of them, and the time for which the lower limit holds."""

_LOG_INTERVAL_S = 10.0
_IPV6_NETWORK = 64
"""Bits. One host may choose the other bits of its IPv6 address freely."""


class Inbound(Protocol):
    """The part of a connection that `Admission` uses."""

    source: tuple[str, int]
    has_frame: bool
    """Whether a whole frame was received."""
    last_frame_at: float
    """Time of the last whole frame, or of the accept (monotonic seconds)."""

    def close(self) -> None:
        """Close the connection at once."""


C = TypeVar("C", bound=Inbound)


class Admission(Generic[C]):
    """The open connections of one listener. Used in the listener's thread only.

    An address without a node in the table may have ``max_connections_per_address`` connections; an
    IPv6 network of 64 bits counts as one address. When ``max_connections`` are open, a connection
    from a known node displaces a less important connection, and all others are refused.
    """

    def __init__(self, settings: Settings, server_id: int, counters: Counters) -> None:
        self._settings = settings
        self._server_id = server_id
        self._counters = counters
        self._open: dict[C, str] = {}
        """Connection → its address or IPv6 network; the oldest connection comes first."""
        self._by_address: Counter[str] = Counter()
        self._views: Views = {}
        self._known: frozenset[str] = frozenset()
        self._shortage = (0, 0.0)
        """The lower limit after descriptors ran out, and its end (monotonic seconds)."""
        self._ended = False
        self._log = LimitedLog(log, _LOG_INTERVAL_S)

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[C]:
        return iter(tuple(self._open))

    def use(self, views: Views) -> None:
        """Use the latest snapshot: the hosts of all nodes but this one are the known addresses."""
        if views == self._views:
            return
        self._views = views
        self._known = frozenset(
            normalised_ip(node.host)
            for view in views.values()
            for node in view.nodes.values()
            if node.machine_id != self._server_id
        )

    def knows(self, ip: str) -> bool:
        """Whether ``ip`` is the address of another node of the table."""
        return ip in self._known

    def patience_s(self, ip: str) -> float:
        """Return the longest time that a connection from ``ip`` may have no whole frame."""
        return self._settings.max_message_time * (KNOWN_PATIENCE if self.knows(ip) else 1)

    # -- connections ------------------------------------------------------------------------------

    def admit(self, connection: C) -> bool:
        """Add a connection; count a refused connection and return False.

        Every connection is refused after `close_all`: the listener may have accepted one before.
        """
        if self._ended:
            return False
        ip = connection.source[0]
        known = self.knows(ip)
        bucket = ip if known else _network(ip)
        reason = self._obstacle(bucket, known=known)
        if reason:
            self._refused(connection, reason)
            return False
        self._open[connection] = bucket
        self._by_address[bucket] += 1
        self._counters.connections_accepted += 1
        self._counters.connections_open = len(self._open)
        return True

    def leave(self, connection: C) -> None:
        """Remove a closed connection. Safe to call again."""
        bucket = self._open.pop(connection, None)
        if bucket is None:
            return
        self._by_address[bucket] -= 1
        if not self._by_address[bucket]:
            del self._by_address[bucket]
        self._counters.connections_open = len(self._open)

    def close_all(self) -> None:
        """Close every connection, and refuse connections from now on."""
        self._ended = True
        for connection in self:
            connection.close()

    def run_short(self) -> None:
        """Lower the limit for a while: the process cannot open another connection."""
        now = monotonic()
        kept = max(int(len(self._open) * _SHARE_KEPT), _LEAST_KEPT)
        self._shortage = kept, now + _SHORTAGE_S
        self._log.warning(
            "short",
            now,
            "listener: this process may not open another file (ulimit -n, LimitNOFILE=); keeping "
            "at most %d inbound connections for %g s",
            kept,
            _SHORTAGE_S,
        )
        for victim in sorted(self._open, key=self._importance)[: max(len(self._open) - kept, 0)]:
            self._displace(victim)

    # -- decisions --------------------------------------------------------------------------------

    def _obstacle(self, bucket: str, *, known: bool) -> str:
        """Return the setting that forbids another connection; empty if a place is free."""
        most = self._most()
        if not known:
            if self._by_address[bucket] >= self._most_per_address():
                return "max_connections_per_address"
            return "max_connections" if len(self._open) >= most else ""
        while len(self._open) >= most:
            victim = self._victim(bucket)
            if victim is None:
                return "max_connections"
            self._displace(victim)
        return ""

    def _most(self) -> int:
        """Return the present limit of open connections."""
        kept, until = self._shortage
        return min(
            self._settings.max_connections,
            room(),
            kept if monotonic() < until else UNLIMITED,
        )

    def _most_per_address(self) -> int:
        return self._settings.max_connections_per_address or max(self._most() // 4, 1)

    def _victim(self, bucket: str) -> C | None:
        """Return the connection that a known node's new connection displaces, or None.

        A known node without a connection may displace any connection. A known node with
        connections may displace only a connection of a node that has more.
        """
        for connection in self._open:  # in a flood the first one matches
            if not connection.has_frame and not self._is_known(connection):
                return connection
        least = min(self._open, key=self._importance)
        if not self._is_known(least) or not least.has_frame:
            return least
        greedy, count = self._by_address.most_common(1)[0]
        mine = self._by_address[bucket]
        if mine and count <= mine + 1:
            return None
        return min((c for c, b in self._open.items() if b == greedy), key=self._importance)

    def _importance(self, connection: C) -> tuple[bool, bool, float]:
        return self._is_known(connection), connection.has_frame, connection.last_frame_at

    def _is_known(self, connection: C) -> bool:
        return self.knows(connection.source[0])

    # -- displaced and refused connections --------------------------------------------------------

    def _displace(self, victim: C) -> None:
        self._counters.closed["displaced"] += 1
        self._log.warning(
            "displaced",
            monotonic(),
            "connection %s:%d: closed: a node of the table needs its place (%d are open)",
            *victim.source,
            len(self._open),
        )
        self.leave(victim)
        victim.close()

    def _refused(self, connection: C, setting: str) -> None:
        self._counters.connections_refused += 1
        self._counters.closed[setting] += 1
        most = self._most() if setting == "max_connections" else self._most_per_address()
        self._log.warning(
            setting,
            monotonic(),
            "connection %s:%d: refused: %s (%d) are open",
            *connection.source,
            setting,
            most,
        )


def _network(ip: str) -> str:
    """Return the address that is counted: ``ip``, or its IPv6 network."""
    try:
        found = ip_address(ip)
    except ValueError:
        return ip
    if not isinstance(found, IPv6Address):
        return ip
    host_bits = 128 - _IPV6_NETWORK
    return f"{IPv6Address(int(found) >> host_bits << host_bits)}/{_IPV6_NETWORK}"
