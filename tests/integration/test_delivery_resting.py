"""Nodes that are not up cost a sender nothing at the claim, and their packets are accounted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import redis

from clusterer.delivery.peer import Peer
from clusterer.membership import Event, State
from clusterer.settings import Settings
from clusterer.store import Cause, NodeStore, keys
from clusterer.store.badvalues import text
from clusterer.store.deliveries import Commit, Rest
from clusterer.store.log_reads import SenderUnusable
from clusterer.store.packets import PacketLog
from clusterer.store.paths import Observation, PathStore
from clusterer.store.sessions import SessionStore
from tests.support.cluster import (
    CLUSTER,
    assert_accounted,
    at_rest,
    delivering,
    load,
    node,
    node_for,
    numbers,
    stat,
)
from tests.support.frames import frame
from tests.support.processes import wait_until
from tests.support.receiver import BinReceiver

UP, DOWN = 2, 3
"""Nodes of the tests with two."""


@pytest.fixture
def settings(redis_client: redis.Redis, redis_url: str) -> Settings:
    return Settings(redis_url=redis_url, linger=0.3)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the machine_ids of the nodes for which destinations are made."""
    found: list[int] = []
    original = Peer.__init__

    def counted(self: Peer, node: Any, *rest: Any, **more: Any) -> None:
        found.append(node.machine_id)
        original(self, node, *rest, **more)

    monkeypatch.setattr(Peer, "__init__", counted)
    return found


@contextmanager
def one_up_one_down(settings: Settings) -> Iterator[tuple[PacketLog, BinReceiver, BinReceiver]]:
    """Provision a node that is up and one that is down, with their receivers."""
    with BinReceiver() as up, BinReceiver() as down:
        rows = [node_for(UP, up), replace(node_for(DOWN, down), state=State.DOWN)]
        load(settings, [node(1, state=State.DOWN), *rows])
        yield PacketLog(settings, 1), up, down


def send(log: PacketLog, *packets: int) -> None:
    """Append numbered packets, one by one."""
    for number in packets:
        log.append(CLUSTER, [frame(number)])


@pytest.mark.parametrize("rows", [30, 300])
def test_claims_make_destinations_of_nodes_that_are_up_only(
    settings: Settings, redis_client: redis.Redis, made: list[int], rows: int
) -> None:
    senders = range(1001, 1031)
    with BinReceiver() as up:
        down = [node(1001 + at, state=State.DOWN) for at in range(rows)]
        load(settings, [node_for(UP, up), *down])
        for sender in senders:
            PacketLog(settings, sender).append(CLUSTER, [frame(0, sender=sender)])
        with delivering(settings):
            up.wait_for_frames(len(senders))
            wait_until(lambda: all(at_rest(settings, s) for s in senders), message="all given back")
            for sender in senders:
                PacketLog(settings, sender).append(CLUSTER, [frame(1, sender=sender)])
            up.wait_for_frames(2 * len(senders))
            wait_until(lambda: all(at_rest(settings, s) for s in senders), message="all given back")
    assert set(made) == {UP}
    assert len(made) <= 3 * len(senders), "two claims, and one more if a lease ran out"
    for sender in senders:
        assert redis_client.hlen(keys.committed(sender)) == rows
    assert stat(redis_client, 1000 + rows, "skipped", sender=1001) == 2
    assert_accounted(settings)


def test_nodes_with_broken_paths_rest_until_records_go(
    settings: Settings, redis_client: redis.Redis, made: list[int]
) -> None:
    settings = replace(settings, linger=10.0)
    with BinReceiver() as up, BinReceiver() as broken:
        load(settings, [node(1, state=State.DOWN), node_for(UP, up), node_for(DOWN, broken)])
        paths, seen = PathStore(settings), NodeStore(settings).view(CLUSTER).nodes[DOWN]
        paths.observe(1, [Observation(seen, None, Event.SUSPECTED, "test", 0, "test")])
        log = PacketLog(settings, 1)
        send(log, 0, 1)
        with delivering(settings):
            up.wait_for_frames(2)
            wait_until(lambda: stat(redis_client, DOWN, "skipped") == 2, message="skipped")
            assert made == [UP]
            paths.delete(1, paths.records(1))
            wait_until(lambda: made == [UP, DOWN], message="a peer is made")
            send(log, 2)
            broken.wait_for_frames(1)
        assert numbers(broken) == [2]
    assert_accounted(settings)


def test_node_up_during_lease_gets_only_what_follows(
    settings: Settings, redis_client: redis.Redis, made: list[int]
) -> None:
    settings = replace(settings, linger=10.0)
    with one_up_one_down(settings) as (log, up, down), delivering(settings):
        send(log, 0, 1)
        up.wait_for_frames(2)
        assert made == [UP]
        NodeStore(settings).command(CLUSTER, DOWN, Event.SET_UP, Cause("test"))
        send(log, 2, 3)
        down.wait_for_frames(2)
        assert numbers(down) == [2, 3]
        up.wait_for_frames(4)
    assert stat(redis_client, DOWN, "skipped") == 2
    assert_accounted(settings)


def test_node_up_after_worker_death_gets_only_what_follows(
    settings: Settings, redis_client: redis.Redis
) -> None:
    with one_up_one_down(settings) as (log, up, down):
        send(log, 0, 1, 2)
        with delivering(settings):
            up.wait_for_frames(3)
            wait_until(lambda: at_rest(settings), message="given back")
        send(log, 3, 4)
        with delivering(replace(settings, linger=10.0)) as engine:
            up.wait_for_frames(5)
            redis_client.delete(keys.lease(1))  # as that of a killed worker
            send(log, 5)
            up.wait_for_frames(6)
            wait_until(lambda: redis_client.exists(keys.lease(1)), message="taken again")
            NodeStore(settings).command(CLUSTER, DOWN, Event.SET_UP, Cause("test"))
            send(log, 6)
            down.wait_for_frames(1)
            assert engine is not None
    assert numbers(down) == [6]
    assert stat(redis_client, DOWN, "skipped") == 6
    assert_accounted(settings)


def test_node_removed_while_down_leaves_nothing_in_redis(
    settings: Settings, redis_client: redis.Redis
) -> None:
    with one_up_one_down(settings) as (log, up, _):
        with delivering(settings):
            send(log, 0)
            up.wait_for_frames(1)
            wait_until(lambda: at_rest(settings), message="given back")
            assert redis_client.hlen(keys.committed(1)) == 2
            send(log, 1)
            up.wait_for_frames(2)
            load(settings, [node(1, state=State.DOWN), node_for(UP, up)])
            send(log, 2)
            up.wait_for_frames(3)
            wait_until(lambda: at_rest(settings), message="given back")
        left = [
            field
            for name in (keys.committed, keys.committed_count, keys.stats)
            for field in map(text, redis_client.hkeys(name(1)))
            if field.startswith(f"1/{DOWN}/")
        ]
        assert not left


def test_packets_trimmed_unread_count_as_lost_for_node_down(
    settings: Settings, redis_client: redis.Redis
) -> None:
    settings = replace(settings, linger=10.0)
    with one_up_one_down(settings) as (log, up, _):
        with delivering(settings):
            send(log, 0)
            up.wait_for_frames(1)
            redis_client.hincrby(keys.counters(1), "sequence", 5)
            redis_client.hincrby(keys.counters(1), str(CLUSTER), 5)
            send(log, 1)
            up.wait_for_frames(2)
        assert stat(redis_client, UP, "lost") == stat(redis_client, DOWN, "lost") == 5
        assert stat(redis_client, DOWN, "skipped") == 2
        assert_accounted(settings)


def test_commit_of_rests_moves_all_and_names_bad_counter(
    settings: Settings, redis_client: redis.Redis
) -> None:
    store = SessionStore(settings, settings.delivery_queue, "test")
    fields = [f"1/{machine_id}/7" for machine_id in range(1, 1101)]
    redis_client.set(keys.lease(1), "test")
    for sequence in (3, 5):
        rest = Rest(fields, sequence, sequence, skipped=sequence, lost=1)
        assert store.commit([Commit(1, [], {"1/1/7/sent": 2}, None, [rest])]) == set()
    assert redis_client.hgetall(keys.committed(1)) == {f.encode(): b"5" for f in fields}
    assert redis_client.hgetall(keys.committed_count(1)) == {f.encode(): b"5" for f in fields}
    assert stat(redis_client, 1, "sent") == 4
    assert {stat(redis_client, at, "skipped") for at in (1, 500, 501, 1100)} == {8}
    assert stat(redis_client, 1100, "lost") == 2
    redis_client.hset(keys.stats(1), "1/9/7/skipped", "many")
    with pytest.raises(SenderUnusable):
        store.commit([Commit(1, [], {}, None, [Rest(fields, 6, 6, skipped=1, lost=0)])])
