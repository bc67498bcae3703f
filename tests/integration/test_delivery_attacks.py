"""Delivery under faults of Redis, odd sizes, odd peers and odd addresses: all is accounted for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Self

import pytest
import redis

from clusterer import Clusterer, StateUnavailable
from clusterer.membership import Condition
from clusterer.provisioning.table import NewRow
from clusterer.services.table import reload
from clusterer.settings import Settings, as_environment
from clusterer.store import ClusterKey, NodeStore, keys
from clusterer.store.append_commands import sub_batches
from clusterer.store.packets import PacketLog
from clusterer.wire.layout import MAX_FRAME
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
from tests.support.processes import EVENTUALLY_S, LATE_S, spawn, wait_until
from tests.support.provisioning import contexts, provision
from tests.support.receiver import BinReceiver
from tests.support.redis_server import RedisServer

SECOND = ClusterKey(2, "bin")


SETTINGS = {"linger": 0.3, "send_timeout": 1.0}


class Stream:
    """Sends numbers one by one in a thread until told to stop; knows which were accepted."""

    def __init__(self, settings: Settings) -> None:
        self.accepted: list[int] = []
        self.refused = 0
        self._log = PacketLog(settings, 1)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _send(self) -> None:
        number = 0
        while not self._stop.wait(0.001):
            try:
                self._log.append(CLUSTER, [frame(number)])
                self.accepted.append(number)
            except StateUnavailable:
                self.refused += 1
            number += 1


def freezes(server: RedisServer) -> None:
    server.pause()
    time.sleep(3.0)
    server.resume()


def restarts(server: RedisServer) -> None:
    server.restart()


def ends_all_connections(server: RedisServer) -> None:
    with server.client() as client:
        for _ in range(5):
            client.client_kill_filter(_type="normal", skipme=True)
            time.sleep(0.3)


@pytest.mark.parametrize("fault", [freezes, restarts, ends_all_connections])
def test_log_accepted_packets_survive_when_redis(
    own_redis_server: Callable[[], RedisServer], fault: Callable[[RedisServer], None]
) -> None:
    server = own_redis_server()
    settings = Settings(redis_url=server.url, linger=0.3, send_timeout=1.0)
    with ExitStack() as stack:
        peers = [stack.enter_context(BinReceiver()) for _ in range(2)]
        load(settings, [node(1), *(node_for(m, p) for m, p in enumerate(peers, 2))])
        for _ in range(3):
            stack.enter_context(delivering(settings, slice_s=0.3))
        with Stream(settings) as stream:
            peers[0].wait_for_frames(200)
            fault(server)
            before, seen = len(stream.accepted), peers[0].frame_count
            wait_until(lambda: len(stream.accepted) > before + 200, message="sending goes on")
            peers[0].wait_for_frames(seen + 100)
        wanted = set(stream.accepted)
        for peer in peers:
            wait_until(lambda p=peer: wanted <= set(numbers(p)), message="all delivered")  # type: ignore[misc]
            first_seen = list(dict.fromkeys(numbers(peer)))
            assert first_seen == sorted(first_seen), "no packet overtook another"
        wait_until(lambda: at_rest(settings), message="given back")
        assert_accounted(settings)
    assert {n.condition for n in NodeStore.view(NodeStore(settings), CLUSTER).nodes.values()} == {
        Condition.UP
    }


SENDING = """
import sys
from clusterer import Clusterer, load_settings
name, count = sys.argv[1], int(sys.argv[2])
with Clusterer(settings=load_settings()) as cluster:
    for number in range(count):
        packet = cluster.packet(name, 1).push_int(number).build()
        cluster.send_to(1, "bin", packet)
"""


def test_log_two_processes_of_one_sender_keep_their_order(
    settings: Settings, redis_client: redis.Redis
) -> None:
    settings = replace(settings, server_id=1)
    with BinReceiver() as peer, delivering(settings), ExitStack() as stack:
        load(settings, [node(1), node_for(2, peer)])
        env = as_environment(settings)
        children = [
            stack.enter_context(spawn(["-c", SENDING, name, "1000"], env)) for name in ("a", "b")
        ]
        for child in children:
            assert child.wait(EVENTUALLY_S) == 0, child.output()
        peer.wait_for_frames(2000)
        wait_until(lambda: stat(redis_client, 2, "sent") == 2000, message="counted")
        assert_accounted(settings)
    for name in ("a", "b"):
        got = [p.fields().pop_int() for p in peer.packets if p.module == name]
        assert got == list(range(1000))


def test_delivery_batch_larger_than_log_is_sent_or_counted_lost(
    settings: Settings, redis_client: redis.Redis
) -> None:
    settings = replace(settings, log_max_packets=100)
    with BinReceiver() as peer:
        load(settings, [node(1), node_for(2, peer)])
        log = PacketLog(settings, 1)
        (whole,) = sub_batches([frame(n) for n in range(2500)])
        log.append(CLUSTER, whole)
        log.append(CLUSTER, [frame(2500)])
        with delivering(settings):
            wait_until(lambda: stat(redis_client, 2, "sent") > 0, message="delivered")
            wait_until(lambda: not redis_client.exists(keys.lease(1)), message="given back")
        assert_accounted(settings)
    got = numbers(peer)
    assert got == list(range(got[0], 2501)), "the newest, without a hole"
    assert 100 <= len(got) <= 600
    assert stat(redis_client, 2, "lost") == 2501 - len(got)


def test_delivery_largest_frames_and_any_batch_arrive_whole(
    settings: Settings, redis_client: redis.Redis
) -> None:
    settings = replace(settings, server_id=1, send_timeout=5.0)
    with BinReceiver() as peer, Clusterer(settings=settings) as cluster:
        load(settings, [node(1), node_for(2, peer)])
        assert cluster.send_many(1, "bin", []) == 1
        assert not redis_client.exists(
            keys.log(1), keys.counters(1), keys.enqueued("clusterer-delivery")
        )
        small = [cluster.packet("test", 1).push_int(n).build() for n in range(100_000)]
        head = cluster.packet("test", 1).push_int(100_000)
        largest = head.push_str(b"x" * (MAX_FRAME - head.size - 4)).build()
        assert len(largest.encode()) == MAX_FRAME
        with delivering(settings):
            cluster.send_many(1, "bin", small)
            cluster.send_to(1, "bin", largest)
            cluster.send_many(1, "bin", [largest] * 50)
            peer.wait_for_frames(100_051)
            wait_until(lambda: stat(redis_client, 2, "sent") == 100_051, message="counted")
        assert_accounted(settings)
    assert numbers(peer) == [*range(100_000), *[100_000] * 51]


class Dripping:
    """Has a receiver read a byte now and then from its connections, and nothing else."""

    def __init__(self, receiver: BinReceiver) -> None:
        self._receiver = receiver
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._drip)

    def __enter__(self) -> None:
        self._receiver.pause()
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _drip(self) -> None:
        while not self._stop.wait(0.1):
            for connection in self._receiver.open_connections:
                with suppress(OSError):
                    connection.record(connection.socket.recv(1))


def test_delivery_peer_reading_single_bytes_delays_no_other(
    settings: Settings, redis_client: redis.Redis
) -> None:
    with BinReceiver(receive_buffer=4096) as slow, BinReceiver() as fine:
        load(settings, [node(1), node_for(2, slow), node_for(3, fine)])
        log = PacketLog(settings, 1)
        with delivering(replace(settings, send_timeout=2 * LATE_S)), Dripping(slow):
            for start in range(0, 2000, 100):
                log.append(CLUSTER, [frame(n, size=1000) for n in range(start, start + 100)])
                fine.wait_for_frames(start + 100, LATE_S)
            store = NodeStore(settings)
            wait_until(
                lambda: store.view(CLUSTER).nodes[2].condition is Condition.PROBING,
                message="probing",
            )
            wait_until(lambda: stat(redis_client, 2, "skipped") > 0, message="skipped")
            wait_until(lambda: not redis_client.exists(keys.lease(1)), message="given back")
        assert_accounted(settings)
    assert numbers(fine) == list(range(2000))
    assert not any(c.error for c in slow.connections)


def test_delivery_ipv6_node_gets_packets_from_ipv6_sender(
    settings: Settings, redis_client: redis.Redis
) -> None:
    with BinReceiver("::1") as peer:
        load(settings, [node(1, host="::1"), node_for(2, peer)])
        with delivering(settings):
            PacketLog(settings, 1).append(CLUSTER, [frame(n) for n in range(100)])
            peer.wait_for_frames(100)
    assert numbers(peer) == list(range(100))
    assert {c.peer[0] for c in peer.connections} == {"::1"}


def test_delivery_host_name_in_table_leads_to_peer(
    redis_client: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    with (
        BinReceiver() as peer,
        contexts(redis_url=redis_url, db_url=f"sqlite:///{tmp_path}/table", linger=0.3) as make,
    ):
        context = make()
        provision(
            context, NewRow(1, 1, "bin:127.0.0.1:1"), NewRow(1, 2, f"bin:localhost:{peer.port}")
        )
        reload.run(context)
        with delivering(context.settings):
            PacketLog(context.settings, 1).append(CLUSTER, [frame(7)])
            peer.wait_for_frames(1)
    assert numbers(peer) == [7]


@pytest.fixture
def both() -> Iterator[BinReceiver]:
    with BinReceiver() as receiver:
        yield receiver


def test_delivery_node_in_two_clusters_or_at_sender_address(
    settings: Settings, redis_client: redis.Redis, both: BinReceiver
) -> None:
    """Node 2 gets each cluster's packets once; so does node 3, at node 1's address."""
    load(settings, [node_for(1, both), node_for(2, both), node_for(3, both)])
    load(settings, [node_for(m, both, cluster_id=2) for m in (1, 2)], SECOND)
    log = PacketLog(settings, 1)
    with delivering(settings):
        for number in range(100):
            log.append(CLUSTER, [frame(number)])
            log.append(SECOND, [frame(1000 + number)])
        both.wait_for_frames(300)
        wait_until(lambda: not redis_client.exists(keys.lease(1)), message="given back")
    assert sorted(numbers(both)) == sorted([*range(100)] * 2 + [*range(1000, 1100)])
    for connection in both.connections:
        got = [packet.fields().pop_int() for packet in connection.packets]
        assert got == sorted(got, key=lambda n: n or 0)
    assert_accounted(settings)


def test_log_redis_out_of_memory_refuses_then_accepts_packets(
    own_redis_server: Callable[[], RedisServer],
) -> None:
    server = own_redis_server()
    settings = Settings(redis_url=server.url, linger=0.3, send_timeout=1.0)
    with ExitStack() as stack:
        peer = stack.enter_context(BinReceiver())
        client = stack.enter_context(server.client())
        load(settings, [node(1), node_for(2, peer)])
        stack.enter_context(delivering(settings))
        with Stream(settings) as stream:
            peer.wait_for_frames(100)
            client.config_set("maxmemory", 1)
            refused = stream.refused
            wait_until(lambda: stream.refused > refused + 20, message="refused")
            seen = peer.frame_count
            time.sleep(1.5)
            assert peer.frame_count - seen <= 500, (
                "what cannot be noted is not written again and again"
            )
            client.config_set("maxmemory", 0)
            accepted = len(stream.accepted)
            wait_until(lambda: len(stream.accepted) > accepted + 100, message="sending goes on")
        wanted = set(stream.accepted)
        wait_until(lambda: wanted <= set(numbers(peer)), message="all delivered")
        wait_until(lambda: at_rest(settings), message="given back")
        assert_accounted(settings)
