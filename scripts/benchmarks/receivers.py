"""Child process: the nodes' end of all connections; counts bytes, or times packets."""

from __future__ import annotations

import select
import socket
from contextlib import suppress
from pathlib import Path
from time import monotonic_ns

from scripts.benchmarks.frames import SENDER, SENDER_AT, SIZE, TIME, TIME_AT
from scripts.benchmarks.serving import answer, argument
from scripts.benchmarks.shared import Shared

CHUNK = 1024 * 1024


class Receivers:
    """Many listeners in one epoll loop."""

    def __init__(self, shared: Shared, nodes: int) -> None:
        self._shared = shared
        self._epoll = select.epoll()
        self._listeners: dict[int, tuple[int, socket.socket]] = {}
        self._connections: dict[int, tuple[int, socket.socket]] = {}
        self._rest: dict[int, bytes] = {}
        self._buffer = bytearray(CHUNK)
        for node in range(nodes):
            listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
            self._listeners[listener.fileno()] = node, listener
            self._epoll.register(listener.fileno(), select.EPOLLIN)

    @property
    def ports(self) -> list[int]:
        return [listener.getsockname()[1] for _, listener in self._listeners.values()]

    def run(self) -> None:
        """Receive for ever."""
        while True:
            for descriptor, _ in self._epoll.poll():
                if descriptor in self._listeners:
                    self._accept(*self._listeners[descriptor])
                else:
                    self._receive(descriptor, *self._connections[descriptor])

    def _accept(self, node: int, listener: socket.socket) -> None:
        connection, _ = listener.accept()
        self._connections[connection.fileno()] = node, connection
        self._rest[connection.fileno()] = b""
        self._epoll.register(connection.fileno(), select.EPOLLIN)

    def _receive(self, descriptor: int, node: int, connection: socket.socket) -> None:
        size = 0
        with suppress(OSError):  # a reset ends the connection like a FIN
            size = connection.recv_into(self._buffer)
        now = monotonic_ns()
        if not size:
            self._epoll.unregister(descriptor)
            connection.close()
            del self._connections[descriptor], self._rest[descriptor]
        elif self._shared.timed:
            self._time(descriptor, node, size, now)
        if size:
            self._shared.count(node, size, now)

    def _time(self, descriptor: int, node: int, size: int, now: int) -> None:
        data = self._rest[descriptor] + self._buffer[:size]
        whole = len(data) - len(data) % SIZE
        for at in range(0, whole, SIZE):
            (sender,) = SENDER.unpack_from(data, at + SENDER_AT)
            (sent,) = TIME.unpack_from(data, at + TIME_AT)
            self._shared.record(node, sender, max(now - sent, 0))
        self._rest[descriptor] = data[whole:]


def main() -> None:
    """Listen, tell the ports, receive until killed."""
    given = argument()
    receivers = Receivers(Shared(Path(given["shared"])), given["nodes"])
    answer(receivers.ports)
    receivers.run()


if __name__ == "__main__":
    main()
