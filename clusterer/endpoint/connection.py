"""redis-py's connections, which leave a server that is not, or no longer, the primary.

redis-py keeps a connection whatever the server answers. A managed Redis moves its name to a new
primary and leaves the old one running as a replica, which refuses writes and serves stale reads.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from time import monotonic
from typing import Any

import redis

from clusterer.endpoint.primary import Address, Server, cannot_serve, is_crowded, is_replica
from clusterer.endpoint.redis_private import (
    NamedConnection,
    NamedTlsConnection,
    is_subscription,
    read_available,
    socket_of,
)

CHECK_S = 2.0
"""Time after which a connection in use checks again whether its server takes writes."""

CHECK = ("DEL", "clusterer:primary")
"""A write that changes nothing. ROLE is forbidden to many users, and hidden by proxies."""


class _Elsewhere(redis.ConnectionError):
    """The server is a replica, and its name has an address that was not tried."""


class Unanswered(redis.ConnectionError):
    """The server ended the connection before it answered anything: it may expect TLS."""


class Following(redis.connection.AbstractConnection):
    """Base of the connection classes: leaves a server that cannot serve.

    ``server`` is what all connections to the same name know of it.
    """

    def __init__(self, *args: Any, server: Server, **options: Any) -> None:
        self._server = server
        self._generation = server.generation
        self._check_at = 0.0
        self._answered = False
        self._address: Address = ("", 0)
        super().__init__(*args, **options)
        server.add(self)

    def should_reconnect(self) -> bool:
        """Whether the connection is to be closed: pools and subscriptions ask between uses."""
        marked: bool = super().should_reconnect()  # type: ignore[no-untyped-call]
        return marked or self._generation != self._server.generation

    def reset_should_reconnect(self) -> None:
        """Forget that the connection was to be closed: it is."""
        super().reset_should_reconnect()  # type: ignore[no-untyped-call]
        self._generation = self._server.generation

    def ensure_primary(self) -> bool:
        """Connect, or connect again if the connection `is_stale`; return whether it is new.

        Call it only while no reply is due. Raises redis-py's errors.
        """
        if self.is_connected and self.is_stale():
            self.disconnect()  # type: ignore[no-untyped-call]
        if self.is_connected:
            return False
        self.connect()  # type: ignore[no-untyped-call]
        return True

    def is_stale(self) -> bool:
        """Whether the process has left the server, or the server takes no writes any more.

        Asks the server every `CHECK_S` at most. Call it only while no reply is due. Raises
        `redis.TimeoutError`, with the connection closed.
        """
        if self.should_reconnect():
            return True
        if monotonic() < self._check_at:
            return False
        self._check_at = monotonic() + CHECK_S
        try:
            return not self._takes_writes()
        except redis.TimeoutError:
            raise
        except redis.ConnectionError:
            return True

    def leave(self, error: Exception) -> None:
        """Have every connection of the process made again, if ``error`` means `cannot_serve`."""
        if cannot_serve(error):
            self._server.leave(self._generation, demoted=is_replica(error), teller=self)

    def interrupt(self) -> None:
        """Make each call that waits for the connection, in any thread, fail at once."""
        sock = socket_of(self)
        if sock is not None and self.pid == os.getpid():  # a parent's connection lives on
            with suppress(OSError):
                # Not the method of a TLS socket, which would go on without TLS.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            response = super().read_response(*args, **options)
        except redis.RedisError as error:
            self.leave(error)
            if isinstance(error, redis.TimeoutError) and not self.is_connected:
                self._server.avoid(self._address)
            self._raise_unanswered(error)
            raise
        self._answered = True
        return response

    def can_read(self, timeout: float = 0) -> bool:
        """Whether data can be read within ``timeout`` seconds.

        Raises the error that a server sends before the first command to refuse the connection.
        """
        try:
            readable = self._is_readable(timeout)
        except redis.ConnectionError as error:
            self._raise_unanswered(error)
            raise
        except OSError as error:  # such as an alert of TLS, which redis-py lets through here
            failure = redis.ConnectionError(f"Error while reading: {error}")
            self._raise_unanswered(failure)
            raise failure from error
        if readable and not self._answered and not is_subscription(self):
            self.read_response()
        return readable

    def _is_readable(self, timeout: float) -> bool:
        readable: bool = super().can_read(timeout)
        return readable

    def _raise_unanswered(self, error: redis.RedisError) -> None:
        """Raise `Unanswered` if ``error`` is the connection's end before the first answer."""
        ended = type(error) is redis.ConnectionError and not is_crowded(error)
        if ended and not self._answered:
            raise Unanswered(str(error)) from error

    def connect_check_health(
        self, check_health: bool = True, retry_socket_connect: bool = True
    ) -> None:
        if self.is_connected:
            return
        self._answered = False
        for _ in range(self._server.most_addresses):
            try:
                super().connect_check_health(check_health, retry_socket_connect)
                break
            except redis.BusyLoadingError:
                if not self._server.has_other(self._address):
                    raise
                self._server.avoid(self._address)
            except _Elsewhere:
                continue
        else:
            raise _Elsewhere(self._server.UNFIT)

    def on_connect_check_health(self, check_health: bool = True) -> None:
        super().on_connect_check_health(check_health)
        if self._server.must_prove(self._address) and not self._takes_writes():
            self._server.avoid(self._address)
            raise _Elsewhere("this address is a replica's")
        # Before anything subscribes again: a subscription looks at `should_reconnect` first.
        self._generation = self._server.generation
        self._check_at = monotonic() + CHECK_S

    def _takes_writes(self) -> bool:
        self.send_command(*CHECK, check_health=False)  # type: ignore[no-untyped-call]
        try:
            self.read_response()
        except redis.ResponseError as error:
            return not is_replica(error)
        return True


class Connection(Following, NamedConnection):
    """A connection over TCP."""


class TlsConnection(Following, NamedTlsConnection):
    """A connection over TLS, which redis-py's pool accepts before the session tickets are read.

    The pool refuses a connection on which data can be read before the first command. With TLS 1.3
    the server sends session tickets after the handshake.
    """

    def _is_readable(self, timeout: float) -> bool:
        # The data may be for the TLS layer only: the parser gets the data of Redis.
        return super()._is_readable(timeout) and read_available(self)


class UnixConnection(Following, redis.UnixDomainSocketConnection):
    """A connection over a unix socket."""
