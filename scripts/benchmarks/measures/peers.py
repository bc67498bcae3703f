"""The same packets to the same number of nodes through NATS and through Redis pub/sub.

Neither does what a delivery does: both give a packet to the subscribers that are connected at the
moment, keep nothing, and know no state of a node. The figures show what such a packet costs.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from typing import Any

from scripts.benchmarks import paths
from scripts.benchmarks.paths import Path, paired_ratio
from scripts.benchmarks.plan import Plan
from scripts.benchmarks.processes import Child
from scripts.benchmarks.roles.brokers import (
    NATS,
    REDIS,
    NatsPublisher,
    RedisPublisher,
    Subscribers,
)
from scripts.benchmarks.roles.receivers import Receivers
from scripts.benchmarks.roles.senders import PER_CALL
from scripts.benchmarks.system import HOST, NODES, System
from tests.support.ports import free_port
from tests.support.processes import wait_until

SIZE = 10_000
"""Packets in a call of `send_many`: nats-py gathers 2 MiB of packets before it writes and waits."""
COMPARED = {
    "send_many": "nats",
    "send_many_100": "nats",
    "post": "nats",
    "send_to": "nats_flush",
}
"""Our way → the way of NATS that promises the caller as much."""

Ways = dict[str, tuple[Path, int]]
"""Key of the figures → the way, and its packets in a round."""


def peers(system: System, plan: Plan) -> dict[str, Any]:
    """Measure all ways in turns. A way whose program or package is not installed is left out."""
    started = system.one_sender()
    ways = {
        "send_many": (paths.ours(system, started, SIZE), plan.batch_packets),
        "send_many_100": (paths.ours(system, started, PER_CALL), plan.batch_packets),
        "post": (paths.ours(system, started, paths.POST), plan.batch_packets),
        "send_to": (paths.ours(system, started, 1), plan.packets),
    }
    ways |= _redis(system, plan)
    if server := _nats_server():
        ways |= _nats(system, plan, server)
    paths.in_turns(plan, *ways.values())
    compared = {
        ours: paired_ratio(ways[ours][0].rates, ways[other][0].rates)
        for ours, other in COMPARED.items()
        if ours in ways and other in ways
    }
    found: dict[str, Any] = {name: way.figures() for name, (way, _) in ways.items()}
    return {"peers": {"vs_nats": compared} | found}


def _nats(system: System, plan: Plan, program: str) -> Ways:
    port = free_port()
    server = system.program(program, "-a", HOST, "-p", str(port))
    wait_until(lambda: _listens(port), message="nats-server listens")
    readers: Child[Receivers] = system.child(Subscribers, NODES, port, *NATS)
    publisher = system.child(NatsPublisher, port)

    def way(name: str, method: Callable[[NatsPublisher, int], int]) -> Path:
        return Path(
            name, system, [publisher], lambda n: publisher.call(method, n), server.pid, readers
        )

    return {
        "nats": (way("NATS", NatsPublisher.publish), plan.batch_packets),
        "nats_flush": (way("NATS with flush", NatsPublisher.flush_each), plan.packets),
    }


def _redis(system: System, plan: Plan) -> Ways:
    readers: Child[Receivers] = system.child(Subscribers, NODES, system.redis.port, *REDIS)
    publisher = system.child(RedisPublisher, system.redis.url)

    def way(name: str, method: Callable[[RedisPublisher, int], int]) -> Path:
        return Path(
            name, system, [publisher], lambda n: publisher.call(method, n), receivers=readers
        )

    pipelined = plan.batch_packets // 4
    return {
        "redis": (way("Redis pub/sub", RedisPublisher.publish), plan.packets),
        "redis_pipeline": (way("Redis pub/sub, pipelines", RedisPublisher.pipelines), pipelined),
    }


def _nats_server() -> str | None:
    """Return the path of nats-server; None unless the server and nats-py are installed."""
    found = shutil.which("nats-server", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    return found if find_spec("nats") else None


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection((HOST, port), 1):
        return True
    return False
