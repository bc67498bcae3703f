"""Paths of senders, broken and shown in tests without a network."""

from __future__ import annotations

import redis

from clusterer.membership import Event, Node, State
from clusterer.membership.paths import Path
from clusterer.settings import Settings
from clusterer.store import ClusterKey, NodeStore
from clusterer.store.paths import Observation, PathStore, Reply
from clusterer.store.probers import ProberStore
from clusterer.store.suspicions import SuspicionStore
from tests.support.cluster import CLUSTER

REFUSED = "cannot connect: Connection refused"


def node_of(settings: Settings, machine_id: int, key: ClusterKey = CLUSTER) -> Node:
    """Return a node as it is in Redis."""
    node, _ = NodeStore(settings).read(key, machine_id)
    assert node is not None
    return node


def record(settings: Settings, sender: int, machine_id: int) -> Path | None:
    """Return the record of a path."""
    return PathStore(settings).records(sender).get(node_of(settings, machine_id).destination)


def break_path(
    settings: Settings,
    sender: int,
    machine_id: int,
    *,
    reason: str = "send failed: did not answer for 2 s",
    times: int = 1,
) -> Reply:
    """Record so many failed attempts of a sender; another host reaches the node while it is up."""
    store, reply = PathStore(settings), Reply.CHANGED
    for _ in range(times):
        node, records = node_of(settings, machine_id), store.records(sender)
        seen = Observation(
            node,
            records.get(node.destination),
            Event.SEND_FAILED,
            reason,
            records.now_ms - 10,
            f"delivery of sender {sender}",
        )
        if node.state is State.UP:  # an ack would lift it
            SuspicionStore(settings).ack(node, 99, "prober 99")
        ((reply, _),) = store.observe(sender, [seen])
    return reply


def check_path(
    settings: Settings, sender: int, machine_id: int, reason: str, *, times: int = 1
) -> None:
    """Record so many checks of the sender's host that failed."""
    store = PathStore(settings)
    for _ in range(times):
        node, records = node_of(settings, machine_id), store.records(sender)
        before = records[node.destination]
        seen = Observation(
            node, before, Event.PROBE_FAILED, reason, before.last_ms, f"prober {sender}"
        )
        if node.state is State.UP:
            SuspicionStore(settings).ack(node, 99, "prober 99")
        store.observe(sender, [seen])


def heal_path(settings: Settings, sender: int, machine_id: int) -> None:
    """Record that a check of the sender's host has reached the node."""
    store, node = PathStore(settings), node_of(settings, machine_id)
    before = store.records(sender)[node.destination]
    changes = [(node, before, None, "probe succeeded")]
    assert store.change(sender, changes, by=f"prober {sender}") == [True]


def put_prober(settings: Settings, machine_id: int) -> None:
    """Have a host with a delivery worker present."""
    assert ProberStore(settings).heartbeat(machine_id, f"test {machine_id}", [CLUSTER])


def put_record(client: redis.Redis, sender: int, node: Node, path: Path) -> None:
    """Write a record as it is."""
    client.hset(f"clusterer:paths:{sender}", node.destination, str(path))
    client.hincrby("clusterer:paths", str(sender), 1)
