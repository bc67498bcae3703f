"""The sums that Redis makes of the traffic are those of the pairs, whatever the keys hold."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
import redis

from clusterer.membership import State
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
from tests.support.seeding import make_node, put_node

NODES = 12
ROUNDS = 20


def put_nodes(client: redis.Redis, rng: random.Random) -> None:
    """Put clusters 1 and 7, machine N of generation N; some nodes are not up."""
    for cluster_id in (1, 7):
        for machine_id in range(1, NODES + 1):
            state = rng.choice([State.UP] * 6 + [State.PROBING, State.DOWN])
            node = make_node(machine_id, cluster_id=cluster_id, generation=machine_id, state=state)
            put_node(client, node)


def put_sender(client: Any, sender: int, rng: random.Random) -> None:
    """Put the hashes of a sender: complete as a rule, with gaps and old nodes now and then."""
    clusters = rng.choice([(1,), (1,), (7,), (1, 7)])
    appended = {cluster: rng.randint(1, 90) for cluster in clusters}
    client.hset(keys.counters(sender), mapping={f"{c}:bin": n for c, n in appended.items()})
    skip, late = rng.choice([0, 0, 0.1, 0.5]), rng.choice([0, 0, 0.2])
    for cluster, count in appended.items():
        for machine_id in range(1, NODES + 1 + rng.choice([0, 0, 1])):
            if machine_id != sender or rng.random() < 0.2:
                field = f"{cluster}/{machine_id}/{machine_id}"
                put_pair(client, sender, field, count, rng, skip=skip, late=late)


def put_pair(
    client: Any,
    sender: int,
    field: str,
    count: int,
    rng: random.Random,
    *,
    skip: float,
    late: float,
) -> None:
    """Put the counts of a pair; ``skip``: share of missing fields; ``late``: of backlogs."""
    for name in ("sent", "failed", "skipped", "lost", "last_delivered"):
        usual = 1 - skip if name in ("sent", "last_delivered") else 0.1
        if rng.random() < usual:
            client.hset(keys.stats(sender), f"{field}/{name}", rng.randint(0, 10**12))
    if rng.random() >= skip:
        left = rng.randint(0, count) if rng.random() < late else 0
        client.hset(keys.committed_count(sender), field, count - left)
    if rng.random() >= skip:
        client.hset(keys.committed(sender), field, rng.randint(0, 90))


def put_paths(client: Any, sender: int, rng: random.Random, now_ms: int) -> None:
    """Record that the sender does not reach some nodes."""
    for machine_id in rng.sample(range(1, NODES + 1), rng.choice([0, 0, 2])):
        if machine_id != sender:
            field = f"{rng.choice((1, 7))}/{machine_id}/{machine_id}"
            record = f"2 1 {now_ms} {now_ms + 60_000} 0 Connection refused"
            client.hset(keys.paths(sender), field, record)
            client.hset(keys.PATHS, sender, 1)


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
