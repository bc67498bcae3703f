"""All private attributes of redis-py in use; tests/unit/test_private_attributes.py lists them.

redis-py has no public way to a connection's socket, to the reading of its parser, or to the
choice among the addresses of a name.
"""

from __future__ import annotations

import socket
from time import monotonic
from typing import Any

import redis

from clusterer.endpoint.primary import Address, Server
from clusterer.runtime import forks


class NoHandshake(TimeoutError):
    """The server did not answer the beginning of TLS: it may not know TLS."""


def socket_of(connection: Any) -> Any:
    """Return the socket of a redis-py connection, None if it is not connected."""
    return connection._sock  # noqa: SLF001


def is_subscription(connection: Any) -> bool:
    """Whether a subscription uses the connection: it reads the first answer itself."""
    return bool(connection._connect_callbacks)  # noqa: SLF001


def read_available(connection: Any) -> bool:
    """Have the connection's parser read what there is; return whether it got anything."""
    parser = connection._parser  # noqa: SLF001
    return bool(parser.read_from_socket(timeout=0, raise_on_timeout=False))


def hold_pool_lock(pool: redis.ConnectionPool) -> None:
    """Have forks wait for the lock of ``pool``: under it redis-py empties the pool in a child."""
    forks.hold(pool._lock)  # noqa: SLF001


class NamedConnection(redis.Connection):
    """Connects to the addresses of a name in the order in which its `Server` has them."""

    _server: Server
    _address: Address

    def _connect(self) -> socket.socket:
        """Return a connected socket. All addresses together get one connect timeout."""
        timeout_s = self.socket_connect_timeout
        ends_at = None if timeout_s is None else monotonic() + timeout_s
        failed = OSError("the name has no address")
        addresses = self._server.addresses(self.host, self.port)
        self.host, self.port = self._server.place(self.host, self.port)
        for address in addresses:
            left_s = None if ends_at is None else ends_at - monotonic()
            if left_s is not None and left_s <= 0:
                break
            self._address = address
            try:
                return self._prepared(socket.create_connection(address, left_s))
            except OSError as error:
                self._server.avoid(address)
                failed = error
        raise failed

    def _prepared(self, sock: socket.socket) -> socket.socket:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.socket_keepalive:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in self.socket_keepalive_options.items():
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
        sock.settimeout(self.socket_timeout)
        return sock


class NamedTlsConnection(redis.SSLConnection, NamedConnection):
    """Does the same over TLS. Raises `NoHandshake`."""

    def _wrap_socket_with_ssl(self, sock: socket.socket) -> Any:
        try:
            return super()._wrap_socket_with_ssl(sock)  # type: ignore[no-untyped-call]
        except TimeoutError as error:
            raise NoHandshake(str(error)) from error
