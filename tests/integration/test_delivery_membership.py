"""Nodes that come, go, move and change state in the middle of a stream."""

from __future__ import annotations

import time
from dataclasses import replace

import redis

from clusterer.membership import Event
from clusterer.settings import Settings
from clusterer.store import Cause, NodeStore
from clusterer.store.packets import PacketLog
from tests.support.cluster import CLUSTER, delivering, load, node, node_for, numbers, stat
from tests.support.frames import frame
from tests.support.processes import wait_until
from tests.support.receiver import BinReceiver
from tests.support.throttle import ThrottledReceiver

SETTINGS = {"linger": 0.3, "send_timeout": 1.0}


def test_delivery_membership_changes_reach_only_nodes_up(
    settings: Settings, redis_client: redis.Redis
) -> None:
    with BinReceiver() as stays, BinReceiver() as moves, BinReceiver() as target:
        load(settings, [node(1), node_for(2, stays), node_for(3, moves)])
        log, store, sent = PacketLog(settings, 1), NodeStore(settings), 0

        def send(count: int) -> None:
            nonlocal sent
            for _ in range(count):
                log.append(CLUSTER, [frame(sent)])
                sent += 1

        with delivering(settings):
            send(200)
            load(settings, [node(1), node_for(2, stays)])
            send(200)
            load(settings, [node(1), node_for(2, stays), node_for(3, moves)])
            readded_at = sent
            send(200)
            moves.wait_for_frames(200)
            wait_until(lambda: sent - 1 in numbers(moves), message="node 3 is current")
            load(settings, [node(1), node_for(2, stays), node_for(3, target)])
            moved_at = sent
            send(200)
            store.command(CLUSTER, 3, Event.SET_DOWN, Cause("test"))
            store.command(CLUSTER, 3, Event.SET_UP, Cause("test"))
            send(200)
            stays.wait_for_frames(sent)
            wait_until(lambda: sent - 1 in numbers(target), message="node 3 is current")
    assert numbers(stays) == list(range(sent)), "nothing skipped for a node that stayed up"
    assert max(numbers(moves)) < moved_at, "nothing to the old address"
    assert min(numbers(target)) >= moved_at, "nothing old to the new address"
    old = [n for n in numbers(moves) if n < readded_at]
    assert not [n for n in numbers(moves) if 200 <= n < readded_at], "nothing old to a new node"
    assert old == sorted(set(old))


def test_delivery_node_set_down_gets_only_what_was_read(
    settings: Settings, redis_client: redis.Redis
) -> None:
    """No new packet comes: only the worker's own reads show the change."""
    settings = replace(
        settings, backlog="replay", linger=5.0, send_timeout=20.0, log_max_packets=10_000_000
    )
    store, total = NodeStore(settings), 400_000
    with ThrottledReceiver(20_000_000) as late, BinReceiver() as current:
        load(settings, [node(1), node_for(2, current), node(3, late.port)])
        store.command(CLUSTER, 3, Event.SET_DOWN, Cause("test"))
        log = PacketLog(settings, 1)
        piece = [frame(n, size=100) for n in range(1000)]
        for _ in range(total // len(piece)):
            log.append(CLUSTER, piece)
        with delivering(settings):
            wait_until(lambda: stat(redis_client, 2, "sent") == total, message="the front is there")
            store.command(CLUSTER, 3, Event.SET_UP, Cause("test"))
            wait_until(lambda: stat(redis_client, 3, "sent") > 10_000, message="catching up")
            store.command(CLUSTER, 3, Event.SET_DOWN, Cause("test"))
            at_once = stat(redis_client, 3, "sent")
            time.sleep(0.5)
            in_the_end = stat(redis_client, 3, "sent")
    assert in_the_end < total
    assert in_the_end - at_once <= 12_000, "what was read, or on its way"
