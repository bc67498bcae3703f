"""Many hosts and a node that vanishes: how soon its verdict falls, and what that costs Redis."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from operator import eq
from typing import Any

import pytest

from clusterer.membership import Condition, Event, Node, suspicions
from clusterer.membership.suspicions import Kind
from clusterer.prober import Prober
from clusterer.settings import Settings
from clusterer.store import Cause, Directory, NodeStore, connect
from clusterer.store.paths import Observation, PathStore, Reply
from clusterer.store.suspicions import Opened, SuspicionStore
from tests.support.cluster import CLUSTER, load, node
from tests.support.probing import black_hole
from tests.support.processes import wait_until
from tests.support.redis_server import RedisServer
from tests.support.scale import scaled

pytestmark = [pytest.mark.serial, pytest.mark.slow]

HOSTS = scaled(60, 300)
VICTIM = 1000
SECONDS = 3.0
"""Length of the intervals in which commands are counted."""

WITHIN_MS = 1000 + scaled(200, 500)
"""The verdict falls within a second of the first failure; all hosts share this process here."""

IDLE_PER_HOST = 16
"""Most commands a second of an idle host: heartbeat and look of the prober, looks of its copies."""

MORE_PER_HOST = 100
"""Most commands of a host because one node vanishes: its cost must not grow with the number of
hosts, as it would if each copy read the whole cluster."""


def address_of(machine_id: int) -> str:
    return f"127.3.{machine_id // 250}.{machine_id % 250 + 1}"


class Host:
    """A sender, its host's prober, and the local copy of an instance."""

    def __init__(self, settings: Settings, machine_id: int, stack: ExitStack) -> None:
        client = connect(settings)
        stack.callback(client.close)
        self.machine_id = machine_id
        self._paths = PathStore(settings, client)
        self._suspicions = SuspicionStore(settings, client)
        self._nodes = NodeStore(settings, client)
        self.directory = Directory(NodeStore(settings, client))
        stack.callback(self.directory.close)
        self.prober = Prober(settings, partial(eq, address_of(machine_id)))
        stack.callback(self.prober.close)

    def fail(self, victim: Node, began_ms: int) -> None:
        """Do what a delivery worker does when an attempt to reach a node has failed."""
        by = f"delivery of machine {self.machine_id}"
        seen = Observation(victim, None, Event.SEND_FAILED, "did not answer", began_ms, by)
        ((reply, _path),) = self._paths.observe(self.machine_id, [seen])
        if reply is not Reply.ASK:
            return
        opened = self._suspicions.open(
            victim,
            Kind.SUSPECT,
            asking=self.machine_id,
            reason=seen.reason,
            views=self.directory.snapshot,
            observation=(self.machine_id, seen),
        )
        if opened is Opened.ALONE:
            self._nodes.observe(victim, Event.SEND_FAILED, Cause(by, seen.reason))


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as made:
        yield made


def commands(client: Any) -> int:
    """Return how many commands Redis has run, those of scripts among them."""
    found = client.info("commandstats")
    return sum(int(stat["calls"]) for stat in found.values())


def times_of(client: Any, key: str, machine_id: int) -> list[int]:
    """Return when a node left "up" (Redis ms)."""
    return [
        int(entry_id.partition(b"-")[0])
        for entry_id, fields in client.xrange(key)
        if fields.get(b"before") == b"up" and int(fields[b"machine_id"]) == machine_id
    ]


@pytest.mark.timeout(180)
def test_many_senders_node_vanishes_verdict_falls_soon(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suspicions, "_host", lambda found: found.host)
    settings = Settings(redis_url=server.url, ping_interval=0.0)
    with ExitStack() as stack:
        client: Any = stack.enter_context(server.client())
        hole, port = stack.enter_context(black_hole())
        rows = [node(i, 5566, address_of(i)) for i in range(1, HOSTS + 1)]
        load(settings, [*rows, node(VICTIM, port, hole)])
        hosts = [Host(settings, i, stack) for i in range(1, HOSTS + 1)]
        for host in hosts:
            host.directory.views()
            host.prober.start()
        wait_until(lambda: client.zcard("clusterer:1:bin:probers") == HOSTS, 60, "all present")
        nodes = NodeStore(settings, client)

        def victim() -> Node:
            found, _ = nodes.read(CLUSTER, VICTIM)
            assert found is not None
            return found

        before = victim()

        client.config_resetstat()
        time.sleep(SECONDS)
        idle = commands(client)

        began_ms = PathStore(settings, client).now_ms()
        client.config_resetstat()
        end = time.monotonic() + SECONDS
        for host in hosts:
            host.fail(before, began_ms)
        wait_until(lambda: victim().condition is not Condition.UP, 5, "the verdict falls")
        time.sleep(max(0.0, end - time.monotonic()))
        more = commands(client) - idle

        first = min(times_of(client, "clusterer:1:pathevents", VICTIM))
        (fell,) = times_of(client, "clusterer:1:events", VICTIM)
        print(f"fell after {fell - first} ms; {idle} commands idle, {more} more")
        assert fell - first <= WITHIN_MS
        assert idle <= IDLE_PER_HOST * HOSTS * SECONDS
        assert more <= MORE_PER_HOST * HOSTS
        wait_until(
            lambda: all(
                host.directory.views()[CLUSTER].nodes[VICTIM].condition is not Condition.UP
                for host in hosts
            ),
            5,
            "all copies know",
        )
