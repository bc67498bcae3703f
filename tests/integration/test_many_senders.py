"""Many hosts and a node that vanishes: how soon its verdict falls, and what that costs Redis."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from clusterer.settings import Settings, as_environment
from tests.support.cluster import load, node
from tests.support.many_hosts import address_of, trigger_of
from tests.support.probing import black_hole
from tests.support.processes import EVENTUALLY_S, spawn, wait_until
from tests.support.redis_server import RedisServer
from tests.support.scale import scaled

pytestmark = [pytest.mark.serial, pytest.mark.slow, pytest.mark.timeout(600)]

HOSTS = scaled(60, 300)
IN_ONE_PROCESS = 30
VICTIM = 1000
SECONDS = 3.0
"""Length of the intervals in which commands are counted."""

WITHIN_MS = 5000
"""Most time between the first failure and the fall of the verdict. The rule is one second; here all
hosts share the cores of one machine, so that each host is late. Without the answers of the hosts no
verdict falls at all: no maintenance worker runs here."""

IDLE_PER_HOST = 16
"""Most commands a second of an idle host: heartbeat and look of the prober, looks of its copies."""

MORE_PER_HOST = 100
"""Most commands of a host because one node vanishes: its cost must not grow with the number of
hosts, as it would if each copy read the whole cluster."""


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as made:
        yield made


def commands(client: Any) -> int:
    """Return how many commands Redis has run, those of scripts among them."""
    found = client.info("commandstats")
    return sum(int(stat["calls"]) for name, stat in found.items() if name != "cmdstat_lpop")


def times_of(client: Any, key: str, machine_id: int) -> list[int]:
    """Return when a node left "up" (Redis ms)."""
    return [
        int(entry_id.partition(b"-")[0])
        for entry_id, fields in client.xrange(key)
        if fields.get(b"before") == b"up" and int(fields[b"machine_id"]) == machine_id
    ]


def test_many_senders_node_vanishes_verdict_falls_soon(server: RedisServer) -> None:
    settings = Settings(redis_url=server.url, ping_interval=0.0)
    firsts = range(1, HOSTS + 1, IN_ONE_PROCESS)
    with ExitStack() as stack:
        client: Any = stack.enter_context(server.client())
        hole, port = stack.enter_context(black_hole())
        rows = [node(i, 5566, address_of(i)) for i in range(1, HOSTS + 1)]
        load(settings, [*rows, node(VICTIM, port, hole)])
        some = []
        for first in firsts:
            words = map(str, (first, first + IN_ONE_PROCESS - 1, VICTIM))
            command = ["-m", "tests.support.many_hosts", *words]
            some.append(stack.enter_context(spawn(command, as_environment(settings))))
        wait_until(lambda: client.zcard("clusterer:1:bin:probers") == HOSTS, 60, "all present")

        client.config_resetstat()
        time.sleep(SECONDS)
        idle = commands(client)

        client.config_resetstat()
        began = time.monotonic()
        for first in firsts:
            client.rpush(trigger_of(first), "now")
        for process in some:
            process.wait_for_output("all copies know", EVENTUALLY_S)
        time.sleep(max(0.0, began + SECONDS - time.monotonic()))
        more = commands(client) - idle * (time.monotonic() - began) / SECONDS

        first_ms = min(times_of(client, "clusterer:1:pathevents", VICTIM))
        (fell_ms,) = times_of(client, "clusterer:1:events", VICTIM)
        print(f"fell after {fell_ms - first_ms} ms; {idle} commands idle, {more:.0f} more")
        assert fell_ms - first_ms <= WITHIN_MS
        assert idle <= IDLE_PER_HOST * HOSTS * SECONDS
        assert more <= MORE_PER_HOST * HOSTS
