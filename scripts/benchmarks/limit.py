"""Child processes: the bare limit, a sender and a reader that do nothing but move bytes."""

from __future__ import annotations

import socket
from time import monotonic_ns
from typing import Any

import redis

from scripts.benchmarks.frames import packet
from scripts.benchmarks.serving import answer, argument, serve

STREAM = "bench:limit"
APPEND = "for i = 1, #ARGV do redis.call('XADD', KEYS[1], '*', 'frame', ARGV[i]) end"
COUNT = 500


def _client(url: str) -> redis.Redis:
    client = redis.Redis.from_url(url, protocol=2, driver_info=None)
    client.set_response_callback("XREAD", lambda reply, **_: reply)
    return client


class Sender:
    """Calls one script that only does the XADDs."""

    def __init__(self, url: str) -> None:
        self._client = _client(url)
        self._sha = self._client.script_load(APPEND)

    def send(self, packets: int, size: int) -> dict[str, float]:
        """Send packets ``size`` a call."""
        frames = [packet(1).encode()] * size
        self._client.delete(STREAM)
        evalsha, sha = self._client.evalsha, self._sha
        started = monotonic_ns()
        for _ in range(packets // size):
            evalsha(sha, 1, STREAM, *frames)
        return {"started_ns": started, "seconds": (monotonic_ns() - started) / 1e9}


def read(url: str, ports: list[int]) -> None:
    """Read the stream for ever: one XREAD, one blocking sendall per node."""
    client: Any = _client(url)
    nodes = [socket.create_connection(("127.0.0.1", port)) for port in ports]
    for node in nodes:
        node.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    answer("ready")
    after = "0"
    while True:
        reply = client.execute_command(
            "XREAD", "COUNT", COUNT, "BLOCK", 0, "STREAMS", STREAM, after
        )
        entries = reply[0][1]
        after = entries[-1][0]
        data = b"".join([fields[1] for _, fields in entries])
        for node in nodes:
            node.sendall(data)


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
