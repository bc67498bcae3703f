"""The probe job against real listeners and a real Redis."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import redis

from clusterer.membership import Condition, Event, Node, State
from clusterer.services import Context
from clusterer.services.periodic import probe, reach
from clusterer.settings import Settings
from clusterer.store import Cause, ClusterKey, NodeStore, keys
from tests.support.cluster import CLUSTER, load, node, node_for
from tests.support.processes import LATE_S
from tests.support.receiver import BinReceiver

SETTINGS = {"probe_interval": 0.1}


def read(context: Context, machine_id: int) -> Node:
    found, _ = context.nodes.read(CLUSTER, machine_id)
    assert found is not None
    return found


def fail(context: Context, machine_id: int) -> None:
    context.nodes.observe(read(context, machine_id), Event.SEND_FAILED, Cause("test"))


def make_due(context: Context, client: redis.Redis) -> None:
    name = keys.due(*CLUSTER)
    client.zunionstore(name, {name: 0.0})


def test_probe_answered_sets_up_and_keeps_attempts(
    context: Context, redis_client: redis.Redis
) -> None:
    with BinReceiver() as receiver:
        load(context.settings, [node_for(2, receiver)])
        fail(context, 2)
        make_due(context, redis_client)
        assert probe.run(context) == 1
    assert read(context, 2).condition is Condition.UP
    assert read(context, 2).no_tries == 1


def test_probe_refusing_node_is_disabled_after_failed_attempts(
    context: Context, redis_client: redis.Redis
) -> None:
    load(context.settings, [node(2, port=1)])
    fail(context, 2)
    for tries in (2, 3):
        make_due(context, redis_client)
        probe.run(context)
        assert read(context, 2).no_tries == tries
    assert read(context, 2).condition is Condition.DISABLED


def test_probe_disabled_node_waits_for_duration_then_up(
    context: Context, redis_client: redis.Redis
) -> None:
    load(context.settings, [node(2, port=1, failed_attempts=1, duration=1)])
    failed_at = time.time()
    fail(context, 2)
    assert read(context, 2).condition is Condition.DISABLED
    assert probe.run(context) == 0
    while read(context, 2).condition is Condition.DISABLED and time.time() < failed_at + 5:
        probe.run(context)
    assert read(context, 2).condition is Condition.UP
    assert read(context, 2).no_tries == 0
    assert time.time() - failed_at >= 1.0


def test_probe_failed_node_is_settled_after_duration(
    context: Context, redis_client: redis.Redis
) -> None:
    now = int(time.time())
    load(context.settings, [node(2, no_tries=2, last_attempt=now - 100)])
    probe.run(context)
    assert read(context, 2).no_tries == 0
    assert not redis_client.zcard(keys.due(*CLUSTER))


def test_probe_overlapping_jobs_count_failure_once(
    context: Context, redis_client: redis.Redis
) -> None:
    load(context.settings, [node(i, port=1, failed_attempts=9) for i in range(2, 30)])
    for machine_id in range(2, 30):
        fail(context, machine_id)
    make_due(context, redis_client)
    # A job that begins late must not find the nodes due again.
    settings = replace(context.settings, probe_interval=60.0)
    contexts = [Context(settings) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        done = sum(pool.map(probe.run, contexts))
    assert done == 28
    assert {read(context, i).no_tries for i in range(2, 30)} == {2}
    for one in contexts:
        one.close()


def test_probe_observation_of_older_version_is_dropped(context: Context) -> None:
    load(context.settings, [node(2)])
    seen = read(context, 2)
    with ThreadPoolExecutor(3) as pool:
        results = list(
            pool.map(
                lambda _: Context(context.settings).nodes.observe(
                    seen, Event.SEND_FAILED, Cause("test")
                ),
                range(3),
            )
        )
    assert sum(found is not None for found in results) == 1
    assert read(context, 2).no_tries == 1


class Interrupted(NodeStore):
    """An observer between whose look and whose commit an operator takes the node down."""

    def read(self, key: ClusterKey, machine_id: int) -> tuple[Node | None, float]:
        found = super().read(key, machine_id)
        NodeStore(self._settings).command(key, machine_id, Event.SET_DOWN, Cause("operator"))
        return found


def test_probe_set_status_before_commit_is_kept(context: Context) -> None:
    load(context.settings, [node(2)])
    seen = read(context, 2)
    store = Interrupted(context.settings)
    assert store.observe(seen, Event.SEND_FAILED, Cause("test")) is None
    found = read(context, 2)
    assert (found.state, found.no_tries) == (State.DOWN, 0)


def test_probe_pings_run_together_and_end_in_time() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        silent = [replace(node(i), port=port) for i in range(2, 202)]
        started = time.monotonic()
        errors = reach.ping_all(silent)
        took = time.monotonic() - started
        for filler in fillers:
            filler.close()
    assert len(errors) == 200
    assert took < 2.0 + LATE_S
    assert "0.5 s" in next(iter(errors.values()))


def test_probe_change_of_node_during_ping_counts(
    context: Context, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(context.settings, [node(i, port=1, failed_attempts=9) for i in (2, 3, 4, 5)])
    for machine_id in (2, 3, 4, 5):
        fail(context, machine_id)
    make_due(context, redis_client)
    ping = reach.ping_all

    def meanwhile(nodes: Iterable[Node]) -> object:
        context.nodes.command(CLUSTER, 2, Event.SET_DOWN, Cause("operator"))
        fail(context, 5)
        load(context.settings, [read(context, i) for i in (2, 4, 5)])
        return ping(nodes)

    monkeypatch.setattr(probe, "ping_all", meanwhile)
    assert probe.run(context) == 4
    assert (read(context, 2).state, read(context, 2).no_tries) == (State.DOWN, 1)
    assert list(context.nodes.view(CLUSTER).nodes) == [2, 4, 5]
    assert (read(context, 4).no_tries, read(context, 5).no_tries) == (2, 2)
    assert sorted(redis_client.zrange(keys.due(*CLUSTER), 0, -1)) == [b"4", b"5"]


def test_probe_node_checked_early_is_due_in_time(
    context: Context, redis_client: redis.Redis
) -> None:
    load(context.settings, [node(2, port=1, failed_attempts=1, duration=100)])
    fail(context, 2)
    make_due(context, redis_client)
    assert probe.run(context) == 1
    due = redis_client.zscore(keys.due(*CLUSTER), 2)
    assert due == pytest.approx(read(context, 2).enabled_at * 1000, abs=1000)


def test_probe_clock_set_back_stops_no_ping(
    context: Context, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """As if Redis's clock had been an hour ahead until now."""
    hour = 3600
    ahead = node(3, port=1, failed_attempts=1, duration=9, last_attempt=int(time.time()) + hour)
    probing = node(2, port=1, failed_attempts=9, state=State.PROBING, no_tries=1)
    load(context.settings, [probing, replace(ahead, state=State.PROBING, no_tries=1)])
    probe.run(context)
    name = keys.due(*CLUSTER)
    redis_client.zadd(name, {"2": (time.time() + hour) * 1000, "3": (time.time() + hour) * 1000})
    assert probe.run(context) == 0
    context.due._looked_at += hour
    probe.run(context)
    assert (redis_client.zscore(name, 2) or 0) / 1000 - time.time() < 2
    assert (redis_client.zscore(name, 3) or 0) / 1000 - time.time() < 10
    assert "clock set back by 3600 s" in caplog.text


def test_probe_next_ping_is_an_interval_after_start(
    redis_url: str, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job a second later must find it due, however long this one took for its pings."""
    context = Context(Settings(redis_url=redis_url))
    load(context.settings, [node(2, port=1, failed_attempts=9)])
    fail(context, 2)
    make_due(context, redis_client)
    ping = reach.ping_all

    def slowly(nodes: Iterable[Node]) -> object:
        found = ping(nodes)
        time.sleep(0.4)
        return found

    monkeypatch.setattr(probe, "ping_all", slowly)
    assert probe.run(context) == 1
    assert read(context, 2).no_tries == 2
    due = (redis_client.zscore(keys.due(*CLUSTER), 2) or 0) / 1000
    assert due == pytest.approx(context.due._looked_at + 0.9, abs=0.01)
    context.close()


def test_probe_hundreds_of_nodes_takes_few_round_trips(
    context: Context, redis_client: redis.Redis
) -> None:
    load(context.settings, [node(i, port=1, failed_attempts=9) for i in range(2, 602)])
    for machine_id in range(2, 602):
        fail(context, machine_id)
    make_due(context, redis_client)
    before = redis_client.info("stats")["total_reads_processed"]
    assert probe.run(context) == 600
    assert redis_client.info("stats")["total_reads_processed"] - before < 300
    assert {n.no_tries for n in context.nodes.view(CLUSTER).nodes.values()} == {2}
