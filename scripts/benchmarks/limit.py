"""Child processes: the bare limit, a sender and a reader that do nothing but move bytes.

They talk to Redis over plain sockets, with hiredis for its protocol: a client library would be
part of what is measured, and then be no limit.
"""

from __future__ import annotations

import socket
from time import monotonic_ns
from typing import Any
from urllib.parse import urlsplit

import hiredis

from scripts.benchmarks.frames import packet
from scripts.benchmarks.serving import answer, argument, serve

STREAM = b"bench:limit"
APPEND = b"for i = 1, #ARGV do redis.call('XADD', KEYS[1], '*', 'frame', ARGV[i]) end"
COUNT = b"500"
CHUNK = 256 * 1024


class Bare:
    """A connection to Redis."""

    def __init__(self, url: str) -> None:
        where = urlsplit(url)
        self._socket = _connect(where.hostname or "127.0.0.1", where.port or 6379)
        # Any: hiredis' stubs know neither bytearray nor mixed tuples.
        self._reader: Any = hiredis.Reader()
        self._buffer = bytearray(CHUNK)

    def __call__(self, *command: Any) -> Any:
        """Send one command and wait for its reply."""
        self._socket.sendall(hiredis.pack_command(command))
        reader, buffer = self._reader, self._buffer
        while (reply := reader.gets()) is False:
            reader.feed(buffer, 0, self._socket.recv_into(buffer))
        return reply


class Sender:
    """Calls one script that only does the XADDs."""

    def __init__(self, url: str) -> None:
        self._call = Bare(url)
        self._sha: bytes = self._call(b"SCRIPT", b"LOAD", APPEND)

    def send(self, packets: int, size: int) -> dict[str, float]:
        """Send packets ``size`` a call."""
        frames = [packet(1).encode()] * size
        call, sha = self._call, self._sha
        call(b"DEL", STREAM)
        started = monotonic_ns()
        for _ in range(packets // size):
            call(b"EVALSHA", sha, 1, STREAM, *frames)
        return {"started_ns": started, "seconds": (monotonic_ns() - started) / 1e9}


def read(url: str, ports: list[int]) -> None:
    """Read the stream for ever: one XREAD, one blocking sendall per node."""
    call = Bare(url)
    nodes = [_connect("127.0.0.1", port) for port in ports]
    answer("ready")
    after = b"0"
    while True:
        reply = call(b"XREAD", b"COUNT", COUNT, b"BLOCK", 0, b"STREAMS", STREAM, after)
        entries = reply[0][1]
        after = entries[-1][0]
        data = b"".join([fields[1] for _, fields in entries])
        for node in nodes:
            node.sendall(data)


def _connect(host: str, port: int) -> socket.socket:
    connection = socket.create_connection((host, port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def main() -> None:
    """Be the sender, or with ports the reader."""
    given = argument()
    if "ports" in given:
        read(given["url"], given["ports"])
    sender = Sender(given["url"])
    answer("ready")
    serve({"send": sender.send})


if __name__ == "__main__":
    main()
