"""The sums that Redis makes of the traffic are those of the pairs, whatever the keys hold."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
import redis

from clusterer.services import Context
from clusterer.services.status import listing
from clusterer.services.status.listing import Listing
from clusterer.store import keys
from clusterer.store.badvalues import collected
from clusterer.store.destinations import field_of
from clusterer.store.packets import PacketLog
from tests.support.cluster import CLUSTER, load
from tests.support.frames import frame
from tests.support.growth import nodes_of
from tests.support.random_traffic import NODES, put_nodes, put_paths, put_sender
from tests.support.seeding import make_node, put_node

ROUNDS = 20


def assert_same(context: Context) -> Listing:
    """Check that both listings say the same; return the one of sums."""
    with collected() as of_pairs:
        pairs = listing.run(context)
    with collected() as of_sums:
        sums = listing.run(context, pairs=False)
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
    backlogs = [listing.sender_backlogs(each) for each in (sums, pairs)]
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
    assert_same(context)


def test_sums_have_packets_that_no_worker_has_seen(
    context: Context, redis_client: redis.Redis
) -> None:
    for machine_id in range(1, NODES + 1):
        put_node(redis_client, make_node(machine_id, generation=2))
    log = PacketLog(context.settings, 1)
    log.append(CLUSTER, [frame(0)] * 3)
    log.close()
    found = assert_same(context).sums
    assert [(item.backlog, item.senders) for item in found.to_nodes] == [(3, 1)] * (NODES - 1)


def test_sums_of_a_sender_whose_nodes_are_all_behind(context: Context, redis_client: Any) -> None:
    """Lua takes 8,000 values from a list at once; a pair with a backlog has four."""
    many = range(1, 2502)
    load(context.settings, nodes_of(many, 5566))
    fields = [field_of(node) for i, node in context.nodes.view(CLUSTER).nodes.items() if i != 1]
    redis_client.hset(keys.counters(1), mapping={"sequence": 9, "1:bin": 9})
    redis_client.hset(keys.stats(1), mapping={f"{field}/sent": 4 for field in fields})
    for name in (keys.committed_count, keys.committed):
        redis_client.hset(name(1), mapping=dict.fromkeys(fields, 4))
    found = assert_same(context).sums
    assert {(item.sent, item.backlog) for item in found.to_nodes} == {(4, 5)}
    assert len(found.waiting) == len(many) - 1


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
