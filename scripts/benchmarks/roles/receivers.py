"""The receiving end of all connections: counts bytes, and records packets when asked to.

The packets of all senders have one size, and the time of sending at a fixed place.
"""

from __future__ import annotations

import selectors
import socket
import struct
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from statistics import quantiles
from time import monotonic_ns
from typing import NamedTuple

from clusterer.wire import Packet, PacketBuilder

CHUNK = 1024 * 1024

MODULE = "bench"
SIZE = 200
"""Bytes of a frame."""

SENDER_AT = 25
"""Offset of the sender's machine_id in a frame (signed, 32 bit)."""
TIME_AT = 33
"""Offset of the time of sending (monotonic ns, unsigned, 64 bit): the start of a str field."""

TIME = struct.Struct("<Q")
SENDER = struct.Struct("<i")
_REST = b"x" * (SIZE - TIME_AT - TIME.size)


def packet(sender: int) -> Packet:
    """Return a packet that carries the time of this call."""
    head = PacketBuilder(MODULE, 1, sender)
    return head.push_str(TIME.pack(monotonic_ns()) + _REST).build()


class Arrival(NamedTuple):
    """One recorded packet."""

    node: int
    """Index of the receiver, from 0."""
    sender: int
    """machine_id."""
    sent_ns: int
    """Time of sending (monotonic): no two packets of a sender have the same."""
    received_ns: int

    @property
    def latency_ms(self) -> float:
        return max(self.received_ns - self.sent_ns, 0) / 1e6


def latency_ms(arrivals: Iterable[Arrival]) -> dict[str, float]:
    """Return the median and the 99th percentile of the latencies."""
    cuts = quantiles([one.latency_ms for one in arrivals], n=100, method="inclusive")
    return {"p50": cuts[49], "p99": cuts[98]}


class Receivers:
    """Listeners on loopback; one thread reads all their connections."""

    def __init__(self, nodes: int) -> None:
        self._selector = selectors.DefaultSelector()
        self._buffer = bytearray(CHUNK)
        self._bytes = self._last_ns = 0
        self._recording = False
        self._since_ns = self._duplicates = 0
        self._arrivals: dict[tuple[int, int, int], int] = {}
        self._ports = [self._listen(node) for node in range(nodes)]
        threading.Thread(target=self._run, daemon=True).start()

    def ports(self) -> list[int]:
        """Return the port of each node."""
        return self._ports

    def received(self) -> int:
        """Return how many packets have arrived at all nodes together since the start.

        While packets are recorded, one that arrives twice at a node counts once.
        """
        return self._bytes // SIZE - self._duplicates

    def last_ns(self) -> int:
        """Return when the last byte arrived at any node (monotonic ns)."""
        return self._last_ns

    def record(self, *, on: bool) -> None:
        """Forget all recorded packets, then record those sent from now on, or none.

        To be called while no packet is under way for the first time.
        """
        self._arrivals = {}
        self._bytes -= self._duplicates * SIZE
        self._duplicates = 0
        self._since_ns = monotonic_ns()
        self._recording = on

    def arrivals(self) -> list[Arrival]:
        """Return the first arrival of each recorded packet at each node."""
        return [Arrival(*key, received_ns) for key, received_ns in self._arrivals.items()]

    def duplicates(self) -> int:
        """Return how many packets arrived again since `record`."""
        return self._duplicates

    def _listen(self, node: int) -> int:
        listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._watch(listener, partial(self._accept, listener, node))
        port: int = listener.getsockname()[1]
        return port

    def _watch(self, readable: socket.socket, react: Callable[[], None]) -> None:
        self._selector.register(readable, selectors.EVENT_READ, react)

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                key.data()

    def _accept(self, listener: socket.socket, node: int) -> None:
        connection, _ = listener.accept()
        self._watch(connection, partial(self._receive, connection, node, bytearray()))

    def _receive(self, connection: socket.socket, node: int, rest: bytearray) -> None:
        size = 0
        with suppress(OSError):  # a reset ends the connection like a FIN
            size = connection.recv_into(self._buffer)
        now = monotonic_ns()
        if not size:
            self._selector.unregister(connection)
            connection.close()
            return
        if self._recording:
            rest += memoryview(self._buffer)[:size]
            self._record(node, rest, now)
        self._bytes += size
        self._last_ns = now

    def _record(self, node: int, data: bytearray, now: int) -> None:
        whole = len(data) - len(data) % SIZE
        for at in range(0, whole, SIZE):
            (sender,) = SENDER.unpack_from(data, at + SENDER_AT)
            (sent,) = TIME.unpack_from(data, at + TIME_AT)
            if sent < self._since_ns or (node, sender, sent) in self._arrivals:
                self._duplicates += 1
            else:
                self._arrivals[node, sender, sent] = now
        del data[:whole]
