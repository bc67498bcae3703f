"""What the console reads of one node is what a reader of all pairs finds of this node."""

from __future__ import annotations

import random
from typing import Any

import pytest
import redis

from clusterer.services import Context
from clusterer.services.live import LastSeen, Reader, Snapshot, alarms, node_pairs, rows
from clusterer.services.status.traffic import Traffic
from clusterer.store import ClusterKey, keys
from clusterer.store.badvalues import collected
from tests.support.random_traffic import NODES, put_nodes, put_paths, put_sender

ROUNDS = 8
AGE_MS, MUTED_MS = 3000, 600_000
KEY = ClusterKey(1, "bin")


def put_instance(client: Any, receiver: int, rng: random.Random, now_ms: int) -> None:
    """Put an instance that saw some nodes and mutes some of these; one in four does not listen."""
    heartbeat = now_ms - rng.choice([0, 0, 0, MUTED_MS])
    modules = {"dialog:1": 10_000, "ratelimit:7": 10_000, "heartbeat": heartbeat + 60_000}
    client.sadd(keys.INSTANCES, receiver)
    client.hset(keys.modules(receiver), mapping=modules)
    for module, cluster in (("dialog", 1), ("ratelimit", 7)):
        seen = rng.sample(range(1, NODES + 1), 6)
        times = dict.fromkeys(seen, now_ms - AGE_MS)
        client.zadd(keys.last_seen(receiver, module, cluster), times)
        if rng.random() < 0.7:
            muted = dict.fromkeys(rng.sample(seen, 2), now_ms + MUTED_MS)
            client.zadd(keys.muted(receiver, module, cluster), muted)


def put_all(context: Context, client: redis.Redis, rng: random.Random) -> None:
    now_ms = int(context.nodes.now() * 1000)
    put_nodes(client, rng)
    for sender in rng.sample(range(1, NODES + 1), 6):
        put_sender(client, sender, rng)
        put_paths(client, sender, rng, now_ms)
    for receiver in (1, 2, 3, 4):
        put_instance(client, receiver, rng, now_ms)


def both(context: Context) -> tuple[Snapshot, Snapshot]:
    """Return the snapshot of all pairs, and that of sums."""
    return Reader(context).read(), Reader(context, pairs=False).read()


def of_cluster(found: Snapshot, key: ClusterKey) -> list[Traffic]:
    return [i for i in found.traffic if (i.cluster_id, i.protocol) == key]


def without_age(items: Any) -> list[Any]:
    found: list[LastSeen] = list(items)
    return [(i.receiver, i.module, i.muted_s is not None, i.timeout_s) for i in found]


@pytest.mark.parametrize("number", range(ROUNDS))
def test_node_pairs_are_those_of_the_reader_of_pairs(
    context: Context, redis_client: redis.Redis, number: int
) -> None:
    put_all(context, redis_client, random.Random(number))
    pairs, sums = both(context)
    seen = 0
    for cluster in rows(None, pairs):
        traffic = of_cluster(pairs, cluster.key)
        for row in cluster.rows:
            machine_id = row.node.machine_id
            found = node_pairs.read(context, sums, row.node)
            assert found.received == row.flows
            assert list(found.sent) == [item for item in traffic if item.sender == machine_id]
            assert without_age(found.last_seen) == without_age(row.last_seen)
            seen += len(found.received) + len(found.last_seen)
    assert seen
    assert sums.offered == pairs.offered


@pytest.mark.parametrize("number", range(ROUNDS))
def test_sums_give_the_alarms_of_the_pairs(
    context: Context, redis_client: redis.Redis, number: int
) -> None:
    put_all(context, redis_client, random.Random(number))
    of_pairs, of_sums = (
        [(i.severity, i.text, i.key) for i in alarms(rows(None, each), {}, each.now)]
        for each in both(context)
    )
    assert of_sums == of_pairs
    assert any("is muted for" in text for _, text, _ in of_sums)


def test_reader_of_sums_sees_senders_come_and_go(
    context: Context, redis_client: redis.Redis
) -> None:
    rng = random.Random(0)
    put_nodes(redis_client, rng)
    put_sender(redis_client, 3, rng)
    reader = Reader(context, pairs=False)
    for sender, wanted in ((5, (3, 5)), (4, (3, 4, 5)), (5, (3, 4))):
        reader.read()
        if redis_client.delete(keys.counters(sender)) == 0:
            put_sender(redis_client, sender, rng)
        assert reader.read().senders == wanted
    redis_client.rename(keys.counters(4), keys.counters(6))
    assert reader.read().senders == (3, 6), "as many as before, and other ones"


@pytest.mark.parametrize("kind", [keys.stats, keys.counters, keys.committed])
def test_node_pairs_of_a_key_of_another_type_are_left_out(
    context: Context, redis_client: redis.Redis, kind: Any
) -> None:
    rng = random.Random(1)
    put_all(context, redis_client, rng)
    put_sender(redis_client, 1, rng)
    redis_client.delete(kind(1))
    redis_client.set(kind(1), "text")
    redis_client.set(keys.muted(1, "dialog", 1), "text")
    with collected() as reported:
        pairs, sums = both(context)
    (cluster,) = (each for each in rows(None, pairs) if each.key == KEY)
    with collected() as found:
        for row in cluster.rows:
            pairs_of_node = node_pairs.read(context, sums, row.node)
            assert pairs_of_node.received == row.flows
            assert without_age(pairs_of_node.last_seen) == without_age(row.last_seen)
    assert {bad.key for bad in found} <= {bad.key for bad in reported}
    assert kind(1) in {bad.key for bad in found}
