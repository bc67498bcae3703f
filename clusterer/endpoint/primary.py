"""The server behind a redis_url: the errors after which a process leaves it, and its addresses."""

from __future__ import annotations

import re
import socket
import weakref
from collections.abc import Mapping
from time import monotonic
from typing import Protocol

import redis

RENEW_S = 1.0
"""Shortest time between two departures of all connections, for a server that stays unfit."""

AVOID_S = 5.0
"""Time for which an address that failed is tried after the others of its name."""

Address = tuple[str, int]

_ELSEWHERE = re.compile(r"\b(?:READONLY|MASTERDOWN|UNBLOCKED force)\b")
_UNFIT = re.compile(r"\b(?:LOADING|NOREPLICAS|CLUSTERDOWN|MISCONF)\b")
_NOT_AUTHENTICATED = re.compile(r"^(?:NOAUTH )?Authentication required")
_CROWDED = re.compile(r"(?:ERR )?max number of clients(?: \+ cluster connections)? reached")


class Connected(Protocol):
    """The part of a connection that a `Server` uses."""

    def interrupt(self) -> None:
        """Make each call that waits for the connection fail at once."""


def is_replica(error: Exception) -> bool:
    """Whether ``error`` is the answer of a server that is not the primary."""
    if isinstance(error, redis.ReadOnlyError | redis.exceptions.MasterDownError):
        return True
    return _ELSEWHERE.search(str(error)) is not None


def cannot_serve(error: Exception) -> bool:
    """Whether ``error`` means that this server cannot do the work, and another one perhaps can.

    READONLY, MASTERDOWN and UNBLOCKED come from a demoted primary, LOADING from a server that
    starts, NOREPLICAS from a primary that is cut off from its replicas, CLUSTERDOWN and MISCONF
    from one that takes no writes and that a manager replaces. After NOAUTH a new connection sends
    the password again. OOM, NOPERM and WRONGPASS are not among them: a new connection to the same
    name would get the same answer, and connections that work would be closed for it.
    """
    if is_replica(error):
        return True
    if isinstance(error, redis.BusyLoadingError | redis.exceptions.ClusterDownError):
        return True
    text = str(error)
    return bool(_UNFIT.search(text) or _NOT_AUTHENTICATED.match(text))


def is_away(error: Exception) -> bool:
    """Whether ``error`` means that Redis cannot serve now, and not that a command was wrong."""
    gone = redis.ConnectionError | redis.TimeoutError | redis.OutOfMemoryError
    return isinstance(error, gone) or cannot_serve(error)


def is_crowded(error: Exception) -> bool:
    """Whether ``error`` is the answer of a server that has as many clients as it may have."""
    return isinstance(error, redis.RedisError) and _CROWDED.match(str(error)) is not None


class Server:
    """One per name, port and process; all connections of all pools to it share it.

    Safe to share between threads and over forks without a lock: each change is one assignment.
    """

    most_addresses = 8
    """Most addresses that one attempt to connect tries."""
    UNFIT = "No address of the name takes writes"

    def __init__(self) -> None:
        self.generation = 0
        """Grows when all connections have to be made again."""
        self._left_at = -RENEW_S
        self._connections: set[weakref.ref[Connected]] = set()
        self._known: tuple[Address, ...] = ()
        self._avoided: dict[Address, float] = {}

    def add(self, connection: Connected) -> None:
        """Interrupt ``connection`` when the server was demoted, as long as it exists."""
        # Python code in place of `discard` could take a KeyboardInterrupt (Ctrl-C): Python ignores
        # errors of these callbacks, and the program would go on.
        self._connections.add(weakref.ref(connection, self._connections.discard))

    def leave(self, generation: int, *, demoted: bool, teller: Connected) -> None:
        """Have all connections that were made in ``generation`` made again before their next use.

        ``demoted``: interrupt all connections, also idle ones and subscriptions, but not
        ``teller``, the connection that got the error. Does nothing for an earlier generation, and
        within `RENEW_S` of the last time.
        """
        now = monotonic()
        if generation != self.generation or now - self._left_at < RENEW_S:
            return
        self._depart(demoted=demoted, teller=teller)

    def _depart(self, *, demoted: bool, teller: Connected | None) -> None:
        self._left_at = monotonic()
        self.generation += 1
        if demoted:
            for reference in list(self._connections):
                connection = reference()
                if connection is not None and connection is not teller:
                    connection.interrupt()

    def place(self, host: str, port: int) -> tuple[str, int]:
        """Return host and port of the server; the name of a certificate is that host."""
        return host, port

    def must_prove(self, address: Address) -> bool:
        """Whether a new connection to ``address`` is used only if the server takes writes."""
        return self.has_other(address)

    def addresses(self, host: str, port: int) -> tuple[Address, ...]:
        """Resolve ``host`` now; addresses that failed within `AVOID_S` come last.

        Raises `OSError` for a name that cannot be resolved.
        """
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        self._known = tuple(dict.fromkeys((str(a[0]), int(a[1])) for *_, a in found))
        now = monotonic()
        return tuple(sorted(self._known, key=lambda address: self._is_avoided(address, now)))

    def avoid(self, address: Address) -> None:
        """Try ``address`` after the others of its name for `AVOID_S`."""
        self._avoided[address] = monotonic() + AVOID_S

    def has_other(self, address: Address) -> bool:
        """Whether the name has an address beside ``address`` that is not avoided."""
        now = monotonic()
        return any(known != address and not self._is_avoided(known, now) for known in self._known)

    def _is_avoided(self, address: Address, now: float) -> bool:
        return self._avoided.get(address, 0.0) > now


_servers: dict[tuple[object, ...], Server] = {}


def server_of(options: Mapping[str, object]) -> Server:
    """Return the process's `Server` for redis-py's connection ``options``."""
    where = tuple(options.get(name) for name in ("host", "port", "path"))
    return _servers.setdefault(where, Server())
