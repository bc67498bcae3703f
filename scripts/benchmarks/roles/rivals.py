"""What the clusterer is compared to: the bare limit, and the naive way with one RQ job per packet.

The bare limit talks to Redis over plain sockets, with hiredis for the protocol: a client library
would be part of what is measured.
"""

from __future__ import annotations

import socket
from time import monotonic_ns
from typing import Any
from urllib.parse import urlsplit

import hiredis
import redis
from rq import Queue
from rq.serializers import JSONSerializer

from scripts.benchmarks.roles.receivers import packet

STREAM = b"bench:limit"
APPEND = b"for i = 1, #ARGV do redis.call('XADD', KEYS[1], '*', 'frame', ARGV[i]) end"
COUNT = b"500"
CHUNK = 256 * 1024
NAIVE_QUEUE = "bench-naive"

_naive_sockets: dict[int, socket.socket] = {}


class Bare:
    """A connection to Redis."""

    def __init__(self, url: str) -> None:
        where = urlsplit(url)
        self._socket = _connect(where.port or 6379, where.hostname or "127.0.0.1")
        # Any: the stubs of hiredis know neither bytearray nor mixed tuples.
        self._reader: Any = hiredis.Reader()
        self._buffer = bytearray(CHUNK)

    def __call__(self, *command: Any) -> Any:
        """Send one command and wait for its reply."""
        self._socket.sendall(hiredis.pack_command(command))
        reader, buffer = self._reader, self._buffer
        while (reply := reader.gets()) is False:
            reader.feed(buffer, 0, self._socket.recv_into(buffer))
        return reply


class BareSender:
    """Calls one script that only does the XADDs."""

    def __init__(self, url: str) -> None:
        self._call = Bare(url)
        self._sha: bytes = self._call(b"SCRIPT", b"LOAD", APPEND)

    def send(self, packets: int, size: int) -> int:
        """Send packets ``size`` a call; return when the first call began (monotonic ns)."""
        frames = [packet(1).encode()] * size
        call, sha = self._call, self._sha
        call(b"DEL", STREAM)
        began = monotonic_ns()
        for _ in range(packets // size):
            call(b"EVALSHA", sha, 1, STREAM, *frames)
        return began


class BareReader:
    """Copies the stream to the nodes: one XREAD, one blocking sendall per node."""

    def __init__(self, url: str, ports: list[int]) -> None:
        self._call = Bare(url)
        self._nodes = [_connect(port) for port in ports]

    def run(self) -> None:
        """Copy until the process ends."""
        after = b"0"
        while True:
            reply = self._call(b"XREAD", b"COUNT", COUNT, b"BLOCK", 0, b"STREAMS", STREAM, after)
            entries = reply[0][1]
            after = entries[-1][0]
            data = b"".join([fields[1] for _, fields in entries])
            for node in self._nodes:
                node.sendall(data)


class NaiveSender:
    """Enqueues one RQ job per packet and node; RQ's SimpleWorker does them."""

    def __init__(self, url: str) -> None:
        connection = redis.Redis.from_url(url)
        self._queue = Queue(NAIVE_QUEUE, connection=connection, serializer=JSONSerializer)

    def send(self, packets: int, ports: list[int]) -> int:
        """Enqueue the jobs; return when the first call began (monotonic ns)."""
        frame = packet(1).encode().hex()
        began = monotonic_ns()
        for _ in range(packets):
            for port in ports:
                self._queue.enqueue(deliver, port, frame)
        return began


def deliver(port: int, frame: str) -> None:
    """Write one frame (hexadecimal) to a node, over a connection that is kept: the RQ job."""
    if port not in _naive_sockets:
        _naive_sockets[port] = _connect(port)
    _naive_sockets[port].sendall(bytes.fromhex(frame))


def _connect(port: int, host: str = "127.0.0.1") -> socket.socket:
    connection = socket.create_connection((host, port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection
