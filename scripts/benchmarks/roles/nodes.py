"""The nodes that send to a listener: small ratelimit packets as fast or as slow as wanted."""

from __future__ import annotations

import socket
from functools import cache
from time import monotonic, sleep

from clusterer.wire import PacketBuilder
from tests.support.processes import wait_until

CHUNK_PACKETS = 1000
CHUNKS = 25
"""Number of different chunks in the stream of a connection; longer streams begin again."""
COUNTER_SIZE = 4
"""Bytes of a counter, which ends a frame."""


def frame(machine_id: int, counter: int = 7) -> bytes:
    """Return 54 bytes: the counter of one pipe."""
    head = PacketBuilder("ratelimit", 0, machine_id).push_str("pipe1")
    return head.push_int(1).push_int(100).push_int(counter).build().encode()


@cache
def chunks(machine_id: int) -> list[bytes]:
    """Return a stream in chunks: no counter in it comes twice."""
    template = frame(machine_id)[:-COUNTER_SIZE]
    return [
        b"".join(
            template + counter.to_bytes(COUNTER_SIZE, "little")
            for counter in range(first, first + CHUNK_PACKETS)
        )
        for first in range(0, CHUNKS * CHUNK_PACKETS, CHUNK_PACKETS)
    ]


class Nodes:
    """Connections to one listening port; the connection of node N carries packets of N."""

    def __init__(self) -> None:
        self._held: list[socket.socket] = []

    def flood(self, port: int, machine_ids: list[int], packets: int) -> float:
        """Send ``packets`` over each connection as fast as the listener reads.

        Returns the seconds until the listener has read everything and closes in its turn.
        """
        connections = {_connect(port): chunks(number) for number in machine_ids}
        begun = monotonic()
        for turn in range(packets // CHUNK_PACKETS):
            for connection, stream in connections.items():
                connection.sendall(stream[turn % CHUNKS])
        for connection in connections:
            connection.shutdown(socket.SHUT_WR)
        for connection in connections:
            while connection.recv(4096):
                pass
            connection.close()
        return monotonic() - begun

    def hold(self, port: int, connections: int) -> None:
        """Open connections and keep them."""
        self._held = [_connect(port) for _ in range(connections)]

    def trickle(self, machine_ids: list[int], rate: float, at_once: int, seconds: float) -> int:
        """Send ``at_once`` packets a time over the held connections in turn, ``rate`` in all.

        Returns how many packets were sent.
        """
        sent = 0
        begun = due = monotonic()
        while due < begun + seconds:
            sleep(max(due - monotonic(), 0.0))
            turn = sent // at_once
            data = frame(machine_ids[turn % len(machine_ids)]) * at_once
            self._held[turn % len(self._held)].sendall(data)
            sent += at_once
            due += at_once / rate
        return sent


def _connect(port: int) -> socket.socket:
    """Connect as soon as the listener listens."""

    def connect() -> socket.socket | None:
        try:
            return socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError:
            return None

    return wait_until(connect, message=f"a listener on port {port}")
