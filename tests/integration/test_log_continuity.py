"""A sender's log over restarts of Redis and on replicas: no sequence twice, no loss uncounted."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import redis

from clusterer import Clusterer, Settings, StateUnavailable
from clusterer.jobs import queued
from clusterer.store import keys
from clusterer.store.badvalues import text
from clusterer.store.packets import PacketLog
from tests.support.cluster import CLUSTER, delivering, load, node, node_for, numbers
from tests.support.frames import frame
from tests.support.ports import free_port
from tests.support.processes import wait_until
from tests.support.receiver import BinReceiver
from tests.support.redis_server import RedisServer

GAP = 1_000_000_000


def counters(client: redis.Redis) -> dict[str, int]:
    return {text(name): int(value) for name, value in client.hgetall(keys.counters(1)).items()}


def append(log: PacketLog, count: int) -> None:
    """Append packets of one number each; again while Redis is away."""
    for number in range(count):

        def appended(number: int = number) -> bool:
            try:
                log.append(CLUSTER, [frame(number)])
            except StateUnavailable:
                return False
            return True

        wait_until(appended, 20, "append")


def test_log_restart_of_redis_leaves_a_gap(own_redis_server: Callable[[], RedisServer]) -> None:
    server = own_redis_server()
    log = PacketLog(Settings(redis_url=server.url), 1)
    append(log, 3)
    for _ in range(18):
        server.restart()
        append(log, 1)
    with server.client() as client:
        found = counters(client)
    assert found["sequence"] == 21 + 18 * GAP
    assert found["1:bin"] == 21, "nothing is lost"
    assert found["gap 18"] == 20 + 17 * GAP
    assert sum(name.startswith("gap ") for name in found) == 16, "older ones are forgotten"
    log.close()


def test_log_gap_trims_no_packet_early(own_redis_server: Callable[[], RedisServer]) -> None:
    """`log_max_packets` counts packets, whatever lies between their sequences."""
    server = own_redis_server()
    log = PacketLog(Settings(redis_url=server.url, log_max_packets=500), 1)
    append(log, 150)
    server.restart()
    append(log, 150)
    server.restart()
    append(log, 150)
    with server.client() as client:
        assert client.xlen(keys.log(1)) == 450
        append(log, 250)
        assert 500 <= client.xlen(keys.log(1)) <= 600, "Redis frees blocks of 100 entries"
    log.close()


def test_log_after_a_restart_is_delivered_in_order(
    own_redis_server: Callable[[], RedisServer],
) -> None:
    server = own_redis_server()
    settings = Settings(redis_url=server.url, linger=0.2)
    log = PacketLog(settings, 1)
    with BinReceiver() as peer:
        load(settings, [node(1, free_port()), node_for(2, peer)])
        with delivering(settings):
            append(log, 5)
            server.restart()
            append(log, 5)
            wait_until(lambda: len(set(numbers(peer))) == 5, 20, "all arrive")
            wait_until(lambda: len(numbers(peer)) >= 10, 20, "all arrive twice")
    log.close()


@pytest.fixture
def replicated(own_redis_server: Callable[[], RedisServer]) -> Iterator[RedisServer]:
    """A server with one replica."""
    server = own_redis_server()
    with RedisServer() as replica, replica.client() as client, server.client() as admin:
        admin.config_set("repl-diskless-sync-delay", 0)
        client.replicaof(server.address, str(server.port))
        wait_until(lambda: client.info("replication")["master_link_status"] == "up", 20)
        yield server
        replica.kill()  # at SIGTERM it would wait for nothing, but its directory must go


def test_wait_replicas_is_met_by_a_replica(replicated: RedisServer) -> None:
    log = PacketLog(Settings(redis_url=replicated.url, wait_replicas=1), 1)
    append(log, 3)
    with replicated.client() as client:
        client.script_flush()
    log.append(CLUSTER, [frame(3)])
    log.close()


def test_wait_replicas_too_few_is_said(replicated: RedisServer) -> None:
    settings = Settings(redis_url=replicated.url, wait_replicas=2)
    load(settings, [node(1), node(2)])
    with Clusterer(1, settings=settings) as sender, replicated.client() as client:
        packet = sender.packet("test", 1).build()
        with pytest.raises(StateUnavailable) as caught:
            sender.send_to(1, "bin", packet)
        assert str(caught.value) == (
            "1 of 2 replicas have the packet after 0.7 s: the packet may have been stored; "
            "look at the replicas, or lower wait_replicas"
        )
        assert caught.value.accepted == 0
        assert client.xlen(keys.log(1)) == 1, "stored all the same"
        assert queued(settings.delivery_queue, client) == 1, "and its delivery is on its way"
