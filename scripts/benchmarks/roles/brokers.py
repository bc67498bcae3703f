"""What `peers` compares with: publishers and raw subscribers of NATS and of Redis pub/sub.

A subscriber is a bare socket that reads what the server writes, as the nodes of the other
measurements are: no client library of a receiver is part of what is measured.
"""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from time import monotonic_ns
from typing import Any

import redis

from scripts.benchmarks.roles.receivers import SIZE, Receivers, packet

SUBJECT = "bench"
LOOPBACK = "127.0.0.1"
PIPELINE = 100
"""Messages of a pipeline of Redis."""

NATS = (
    f'CONNECT {{"verbose":false}}\r\nSUB {SUBJECT} 1\r\nPING\r\n',
    "PONG\r\n",
    len(f"MSG {SUBJECT} 1 {SIZE}\r\n\r\n") + SIZE,
)
REDIS = (
    f"SUBSCRIBE {SUBJECT}\r\n",
    ":1\r\n",
    len(f"*3\r\n$7\r\nmessage\r\n${len(SUBJECT)}\r\n{SUBJECT}\r\n${SIZE}\r\n\r\n") + SIZE,
)
"""What subscribes, how the server's answer to it ends, bytes of a message."""

ANSWER_WITHIN_S = 10.0


class Subscribers(Receivers):
    """Raw subscribers of one server; they count whole messages by their bytes."""

    def __init__(self, nodes: int, port: int, subscribe: str, ready: str, size: int) -> None:
        super().__init__(0)
        self._size = size
        for node in range(nodes):
            connection = socket.create_connection((LOOPBACK, port), ANSWER_WITHIN_S)
            connection.sendall(subscribe.encode())
            answer = b""
            while not answer.endswith(ready.encode()):
                answer += connection.recv(4096)
            connection.settimeout(None)
            self._watch(connection, partial(self._receive, connection, node, bytearray()))

    def received(self) -> int:
        """Return how many messages have arrived at all subscribers together."""
        return self._bytes // self._size


class NatsPublisher:
    """Publishes with nats-py."""

    def __init__(self, port: int) -> None:
        import nats  # noqa: PLC0415 - an extra package, which only this role needs

        self._runner = asyncio.Runner()
        self._client = self._runner.run(nats.connect(f"nats://{LOOPBACK}:{port}"))

    def publish(self, packets: int) -> int:
        """Publish packets one by one, and flush at the end; return when the first call began."""
        return self._runner.run(self._publish(packets))

    def flush_each(self, packets: int) -> int:
        """Publish packets, each with a flush: the server has it; return as `publish` does."""
        return self._runner.run(self._flush_each(packets))

    async def _publish(self, packets: int) -> int:
        publish, payload = self._client.publish, packet(1).encode()
        began = monotonic_ns()
        for _ in range(packets):
            await publish(SUBJECT, payload)
        await self._client.flush(60)
        return began

    async def _flush_each(self, packets: int) -> int:
        client, payload = self._client, packet(1).encode()
        began = monotonic_ns()
        for _ in range(packets):
            await client.publish(SUBJECT, payload)
            await client.flush(60)
        return began


class RedisPublisher:
    """Publishes with redis-py."""

    def __init__(self, url: str) -> None:
        self._client: Any = redis.Redis.from_url(url)

    def publish(self, packets: int) -> int:
        """Publish packets one by one; return when the first call began (monotonic ns)."""
        publish, payload = self._client.publish, packet(1).encode()
        began = monotonic_ns()
        for _ in range(packets):
            publish(SUBJECT, payload)
        return began

    def pipelines(self, packets: int) -> int:
        """Publish packets in pipelines of `PIPELINE`; return as `publish` does."""
        payload = packet(1).encode()
        began = monotonic_ns()
        for _ in range(packets // PIPELINE):
            pipe = self._client.pipeline(transaction=False)
            for _ in range(PIPELINE):
                pipe.publish(SUBJECT, payload)
            pipe.execute()
        return began
