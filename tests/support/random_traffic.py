"""Random traffic between the nodes of two clusters, put into Redis."""

from __future__ import annotations

import random
from typing import Any

import redis

from clusterer.membership import State
from clusterer.store import keys
from tests.support.seeding import make_node, put_node

NODES = 12


def put_nodes(client: redis.Redis, rng: random.Random) -> None:
    """Put clusters 1 and 7, node N of generation N; some nodes are not up."""
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
