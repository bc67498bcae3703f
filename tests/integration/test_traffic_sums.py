"""The sums that Redis makes of the traffic are those of the pairs, whatever the keys hold."""

from __future__ import annotations

import random
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
import redis

from clusterer.services import Context
from clusterer.services.status import node_list
from clusterer.services.status.node_list import NodeList
from clusterer.store import connect, keys
from clusterer.store.badvalues import collected
from clusterer.store.deliveries import Commit, Move
from clusterer.store.packets import PacketLog
from clusterer.store.sessions import SessionStore
from tests.support.cluster import CLUSTER, load, take_lease
from tests.support.frames import frame
from tests.support.growth import nodes_of, put_cluster
from tests.support.random_traffic import NODES, put_nodes, put_paths, put_sender
from tests.support.seeding import make_node, put_node

ROUNDS = 20


def assert_same(context: Context) -> NodeList:
    """Check that both listings say the same; return the one of sums."""
    with collected() as of_pairs:
        pairs = node_list.run(context)
    with collected() as of_sums:
        sums = node_list.run(context, pairs=False)
    found, wanted = sums.sums, pairs.sums

    def without_age(items: Any) -> list[Any]:
        names = ("sent", "failed", "skipped", "lost", "backlog", "last_delivered")
        return [[getattr(item, name) for name in names] for item in items]

    assert without_age(found.to_nodes) == without_age(wanted.to_nodes)
    assert without_age(found.from_senders) == without_age(wanted.from_senders)
    places = [(i.cluster_id, i.protocol, i.machine_id, i.senders) for i in wanted.to_nodes]
    assert [(i.cluster_id, i.protocol, i.machine_id, i.senders) for i in found.to_nodes] == places
    senders = [(i.sender, i.nodes) for i in wanted.from_senders]
    assert [(i.sender, i.nodes) for i in found.from_senders] == senders
    assert found.reach == wanted.reach
    assert found.sent_by == wanted.sent_by
    backlogs = [node_list.sender_backlogs(each) for each in (sums, pairs)]
    assert [replace(item, oldest_s=0) for item in backlogs[0]] == [
        replace(item, oldest_s=0) for item in backlogs[1]
    ]
    # A committed offset is read, and can be bad, only if its node has a backlog.
    reported = [
        {(bad.key, bad.place) for bad in some if not bad.key.startswith(keys.committed(0)[:-1])}
        for some in (of_sums, of_pairs)
    ]
    assert reported[0] == reported[1]
    assert sums.traffic == ()
    return sums


@pytest.mark.parametrize("number", range(ROUNDS))
def test_sums_are_those_of_the_pairs(
    context: Context, redis_client: redis.Redis, number: int
) -> None:
    rng = random.Random(number)
    put_nodes(redis_client, rng)
    now_ms = int(context.nodes.now() * 1000)
    for sender in rng.sample(range(1, NODES + 1), 6):
        put_sender(redis_client, sender, rng)
        put_paths(redis_client, sender, rng, now_ms)
    assert assert_same(context).sums == assert_same(context).sums, "summed, then kept"


def test_sums_have_packets_that_no_worker_has_seen(
    context: Context, redis_client: redis.Redis
) -> None:
    for machine_id in range(1, NODES + 1):
        put_node(redis_client, make_node(machine_id, generation=2))
    with closing(PacketLog(context.settings, 1)) as log:
        log.append(CLUSTER, [frame(0)] * 3)
    found = assert_same(context).sums
    assert [(item.backlog, item.senders) for item in found.to_nodes] == [(3, 1)] * (NODES - 1)


def test_sums_of_a_sender_whose_nodes_are_all_behind(context: Context, redis_client: Any) -> None:
    """Lua takes 8,000 values from a list at once; a pair with a backlog has four."""
    many = range(1, 2502)
    load(context.settings, nodes_of(many, 5566))
    fields = [node.destination for i, node in context.nodes.view(CLUSTER).nodes.items() if i != 1]
    redis_client.hset(keys.counters(1), mapping={"sequence": 9, "1:bin": 9})
    redis_client.hset(keys.stats(1), mapping={f"{field}/sent": 4 for field in fields})
    for name in (keys.committed_count, keys.committed):
        redis_client.hset(name(1), mapping=dict.fromkeys(fields, 4))
    found = assert_same(context).sums
    assert {(item.sent, item.backlog) for item in found.to_nodes} == {(4, 5)}
    assert len(found.waiting) == len(many) - 1


def reads_of_pairs(client: Any) -> int:
    """Return how many hashes with a field for each node Redis has read since the last call."""
    stats = client.info("commandstats")
    client.config_resetstat()
    return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("hvals", "hlen"))


def deliver(context: Context, store: SessionStore, rng: random.Random, sender: int) -> None:
    """Send some packets, deliver most of them, and forget a node, as senders and workers do."""
    with closing(PacketLog(context.settings, sender)) as log:
        log.append(CLUSTER, [frame(number) for number in range(rng.randint(1, 3))])
    nodes = [node for i, node in context.nodes.view(CLUSTER).nodes.items() if i != sender]
    claim = take_lease(store, sender)
    if claim is None or rng.random() < 0.2:
        return  # the sender stays leased
    fields = [node.destination for node in nodes if rng.random() < 0.9]
    behind = rng.choice([0, 0, 0, 1])
    tail, n = claim.tail - behind, claim.counts[CLUSTER] - behind
    names = {field: rng.choice(["sent", "sent", "failed", "skipped", "lost"]) for field in fields}
    counters: dict[str, int | str] = {f"{f}/{name}": 1 for f, name in names.items()}
    counters |= {f"{f}/last_delivered": "now" for f, name in names.items() if name == "sent"}
    store.commit([Commit(sender, [Move(f, tail, n) for f in fields], counters, tail + 1)])
    guarded = {fields[0]: tail + 1} if fields and rng.random() < 0.3 else {}
    store.release(sender, tail, tail + 1, guarded, waiting=False, even_if_pending=True)
    for field in guarded:
        assert_same(context)
        again = Move(field, tail - 1, n - 1) if rng.random() < 0.5 else None
        store.end_guard(sender, field, again, {f"{field}/sent": -1})
    if fields and rng.random() < 0.2:
        store.forget(sender, fields[:1])


@pytest.mark.parametrize("number", range(4))
def test_sums_follow_senders_and_workers(context: Context, number: int) -> None:
    rng = random.Random(number)
    load(context.settings, nodes_of(range(1, NODES + 1), 5566))
    with connect(context.settings) as worker:
        store = SessionStore(context.settings, context.settings.delivery_queue, "test", worker)
        for _ in range(15):
            deliver(context, store, rng, rng.choice((1, 2, 5)))
            assert_same(context)


def test_sums_of_senders_at_rest_are_kept(context: Context, redis_client: Any) -> None:
    put_cluster(context.settings, 5, 3)
    assert_same(context)
    reads_of_pairs(redis_client)
    node_list.run(context, pairs=False)
    assert reads_of_pairs(redis_client) == 0
    with closing(PacketLog(context.settings, 2)) as log:
        log.append(CLUSTER, [frame(0)])
    assert [item.backlog for item in assert_same(context).sums.from_senders] == [0, 4, 0]
    reads_of_pairs(redis_client)
    node_list.run(context, pairs=False)
    assert reads_of_pairs(redis_client) == 2, "of the sender with a packet that waits"


KEPT: dict[str, tuple[Any, ...]] = {
    "sums": ("hset", "sums", "text"),
    "digest": ("hset", "digest", "text"),
    "senders": ("hset", "senders", "1000000"),
    "no number": ("hset", "senders", "x"),
    "another type": ("set", "text"),
}


@pytest.mark.parametrize("change", KEPT.values(), ids=KEPT)
def test_sums_kept_with_bad_value_are_made_again(
    context: Context, redis_client: Any, change: tuple[Any, ...]
) -> None:
    put_cluster(context.settings, 5, 3)
    wanted = assert_same(context).sums
    name, *arguments = change
    if name == "set":
        redis_client.delete(keys.sums(1))
    getattr(redis_client, name)(keys.sums(1), *arguments)
    assert assert_same(context).sums == wanted


BAD: dict[str, tuple[Any, Any]] = {
    "text": (keys.stats, ("hset", "1/2/2/sent", "many")),
    "negative": (keys.stats, ("hset", "1/2/2/lost", "-5")),
    "fraction": (keys.committed_count, ("hset", "1/2/2", "1.5")),
    "counter": (keys.counters, ("hset", "1:bin", "x")),
    "committed": (keys.committed, ("hset", "1/2/2", "x")),
    "stats of another type": (keys.stats, ("set", "text")),
    "counts of another type": (keys.committed_count, ("set", "text")),
    "log of another type": (keys.log, ("set", "text")),
}


@pytest.mark.parametrize(("key", "change"), BAD.values(), ids=BAD)
def test_sums_leave_out_bad_values_of_one_sender_only(
    context: Context, redis_client: Any, key: Any, change: Any
) -> None:
    rng = random.Random(1)
    for machine_id in range(1, NODES + 1):
        put_node(redis_client, make_node(machine_id, generation=machine_id))
    for sender in (1, 4):
        put_sender(redis_client, sender, rng)
        redis_client.hset(keys.counters(sender), "1:bin", 95)
        redis_client.hset(keys.stats(sender), "1/3/3/sent", 5)
    name, *arguments = change
    if name == "set":
        redis_client.delete(key(4))
    getattr(redis_client, name)(key(4), *arguments)
    found = assert_same(context).sums
    assert found.from_senders[0].sender == 1


def test_sums_not_kept_show_values_changed_by_hand(context: Context, redis_client: Any) -> None:
    put_cluster(context.settings, 5, 3)
    node_list.run(context, pairs=False)
    redis_client.hset(keys.stats(1), redis_client.hkeys(keys.stats(1))[0], "x")
    for kept, number in ((True, 0), (False, 1)):
        with collected() as problems:
            node_list.run(context, pairs=False, kept=kept)
        assert len(problems) == number
