"""What is read of one node is what the list of all pairs and the instances have of it."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
import redis

from clusterer.membership import Node
from clusterer.services import Context
from clusterer.services.live import Reader, alarms, node_pairs, rows
from clusterer.services.status import node_list
from clusterer.store import keys
from clusterer.store.badvalues import collected
from clusterer.store.watches import LISTENING_MS
from tests.support.random_traffic import NODES, put_nodes, put_paths, put_sender

ROUNDS = 8
AGE_MS, MUTED_MS = 3000, 600_000


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


def of_instances(client: Any, node: Node, now_ms: int) -> list[tuple[int, str, bool]]:
    """Return which instances that listen saw or mute a node, each with its module."""
    found = []
    for receiver in (1, 2, 3, 4):
        for module, cluster in (("dialog", 1), ("ratelimit", 7)):
            listens = now_ms - int(client.hget(keys.modules(receiver), "heartbeat")) <= LISTENING_MS
            if listens and cluster == node.cluster_id:
                names = (of(receiver, module, cluster) for of in (keys.last_seen, keys.muted))
                seen, muted = (client.zscore(name, node.machine_id) for name in names)
                if seen or muted:
                    found.append((receiver, module, muted is not None))
    return sorted(found, key=lambda item: (item[1], item[0]))


@pytest.mark.parametrize("number", range(ROUNDS))
def test_node_pairs_are_those_of_listing_and_instances(
    context: Context, redis_client: redis.Redis, number: int
) -> None:
    put_all(context, redis_client, random.Random(number))
    pairs, snapshot = node_list.run(context), Reader(context).read()
    seen = 0
    for view in pairs.clusters:
        traffic = [i for i in pairs.traffic if (i.cluster_id, i.protocol) == view.key]
        for machine_id, node in view.nodes.items():
            found = node_pairs.read(context, snapshot, node)
            assert list(found.received) == [i for i in traffic if i.machine_id == machine_id]
            assert list(found.sent) == [i for i in traffic if i.sender == machine_id]
            last_seen = [(i.receiver, i.module, i.muted_s is not None) for i in found.last_seen]
            assert last_seen == of_instances(redis_client, node, int(snapshot.now * 1000))
            seen += len(found.received) + len(found.last_seen)
    assert seen


@pytest.mark.parametrize("number", range(ROUNDS))
def test_sums_give_the_alarms_of_the_pairs(
    context: Context, redis_client: redis.Redis, number: int
) -> None:
    put_all(context, redis_client, random.Random(number))
    snapshot = Reader(context).read()
    of_sums = rows(None, snapshot)
    of_pairs = [
        replace(each, rows=tuple(node_pairs.added(context, snapshot, row) for row in each.rows))
        for each in of_sums
    ]
    found, wanted = (
        [(i.severity, i.text, i.key) for i in alarms(some, {}, snapshot.now)]
        for some in (of_sums, of_pairs)
    )
    assert found == wanted
    assert any("is muted for" in text for _, text, _ in found)


def test_reader_of_sums_sees_senders_come_and_go(
    context: Context, redis_client: redis.Redis
) -> None:
    rng = random.Random(0)
    put_nodes(redis_client, rng)
    put_sender(redis_client, 3, rng)
    reader = Reader(context)
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
    pairs, snapshot = node_list.run(context), Reader(context).read()
    with collected() as found:
        for node in snapshot.clusters[0].nodes.values():
            assert node.cluster_id == 1
            received = node_pairs.read(context, snapshot, node).received
            to = [i for i in pairs.traffic if (i.cluster_id, i.machine_id) == (1, node.machine_id)]
            assert list(received) == to
    assert kind(1) in {bad.key for bad in found}
