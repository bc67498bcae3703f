"""Corners of delivery in which packets were once lost, doubled, torn or starved."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from enum import IntEnum
from typing import Any

import pytest
import redis

from clusterer import Clusterer, InvalidArgument, Settings
from clusterer.delivery import Engine, leases
from clusterer.membership import Event, State
from clusterer.services import Context
from clusterer.services.periodic import sweep
from clusterer.store import Cause, ClusterKey, NodeStore, append_queue, keys
from clusterer.store.backlog import HOLD_OFF_MS, BacklogStore
from clusterer.store.deliveries import Commit, Move, Released
from clusterer.store.packets import PacketLog
from clusterer.store.sessions import SessionStore
from tests.support.cluster import (
    CLUSTER,
    append,
    assert_accounted,
    delivering,
    load,
    node,
    node_for,
    numbers,
    stat,
    take_lease,
)
from tests.support.frames import frame
from tests.support.processes import wait_until
from tests.support.receiver import BinReceiver

SECOND = ClusterKey(2, "bin")


SETTINGS = {"linger": 0.3, "send_timeout": 5.0}


@pytest.fixture
def receiver() -> Iterator[BinReceiver]:
    with BinReceiver() as made:
        yield made


def test_log_large_group_holds_up_no_other_caller(
    settings: Settings, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(append_queue, "MAX_CALL", 5)
    log = PacketLog(settings, 1)
    stored = 0

    def work(size: int) -> None:
        for _ in range(150):
            log.append(CLUSTER, [b"x"] * size)

    sizes = (10, 10, 1, 1, 1, 1)
    threads = [threading.Thread(target=work, args=(size,)) for size in sizes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stored = int(redis_client.hget(keys.counters(1), "sequence") or 0)
    assert stored == 150 * sum(sizes)


def test_delivery_new_cluster_leaves_begun_frames_whole(
    settings: Settings, redis_client: redis.Redis
) -> None:
    with BinReceiver(receive_buffer=4096) as slow, BinReceiver() as fine, BinReceiver() as other:
        load(settings, [node(1), node_for(2, slow), node_for(3, fine)])
        load(settings, [node(1, cluster_id=2), node_for(4, other, cluster_id=2)], SECOND)
        log = PacketLog(settings, 1)
        with delivering(settings):
            log.append(CLUSTER, [frame(0)])
            slow.wait_for_frames(1)
            slow.pause()
            total = 1
            while total < 1001:
                log.append(CLUSTER, [frame(n, size=1000) for n in range(total, total + 100)])
                total += 100
            fine.wait_for_frames(1001)
            log.append(SECOND, [frame(0)])
            log.append(CLUSTER, [frame(1001)])
            other.wait_for_frames(1)
            slow.resume()
            slow.wait_for_frames(1002)
    assert [connection.error for connection in slow.connections] == [None]
    assert numbers(slow) == numbers(fine) == list(range(1002))


class Number(IntEnum):
    ONE = 1


@pytest.mark.parametrize("cluster_id", [1.0, True, "1", None])
def test_log_cluster_id_of_wrong_type_is_refused(
    settings: Settings, redis_client: redis.Redis, cluster_id: object
) -> None:
    load(settings, [node(1), node(2)])
    with Clusterer(server_id=1, settings=settings) as instance:
        packet = instance.packet("test", 1).build()
        with pytest.raises(InvalidArgument, match="cluster_id"):
            instance.send_to(cluster_id, "bin", packet)  # type: ignore[arg-type]
        with pytest.raises(InvalidArgument, match="Packet"):
            instance.send_to(1, "bin", instance.packet("test", 1))  # type: ignore[arg-type]
        assert not redis_client.exists(keys.log(1))
        instance.send_to(Number.ONE, "bin", packet)
    assert set(redis_client.hkeys(keys.counters(1))) == {
        b"sequence",
        b"1:bin",
        b"since 1:bin",
        b"replid",
    }


def test_delivery_more_senders_than_limit_all_have_a_turn(
    settings: Settings, receiver: BinReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "MAX_SENDERS", 2)
    monkeypatch.setattr("clusterer.delivery.claims.EXCHANGE_EVERY_S", 0.2)
    senders = range(11, 16)
    load(settings, [*(node(s) for s in senders), node_for(2, receiver)])
    logs = {sender: PacketLog(settings, sender) for sender in senders}

    def all_served() -> bool:
        for sender, log in logs.items():  # all are busy all the time
            log.append(CLUSTER, [frame(1, sender=sender)])
        return {packet.machine_id for packet in receiver.packets} == set(senders)

    with delivering(replace(settings, linger=30.0)):
        wait_until(all_served, message="a packet of every sender")


def test_delivery_full_worker_limits_wakeups_of_others(
    settings: Settings, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "MAX_SENDERS", 1)
    load(settings, [node(11), node(12), node(2, host="192.0.2.1")])
    for sender in (11, 12):
        PacketLog(settings, sender).append(CLUSTER, [frame(1, sender=sender)])
    engine = Engine(settings, settings.delivery_queue)
    redis_client.config_resetstat()
    engine.run(slice_s=1.5)
    engine.close()
    assert redis_client.info("commandstats")["cmdstat_smembers"]["calls"] < 20


def test_delivery_nodes_added_together_share_one_search(
    settings: Settings, redis_client: redis.Redis
) -> None:
    load(settings, [node(machine, host="127.0.0.1") for machine in range(1, 65)])
    PacketLog(settings, 1).append(CLUSTER, [frame(0)])
    engine = Engine(settings, settings.delivery_queue)
    redis_client.config_resetstat()
    engine.run(slice_s=0.01)
    engine.close()
    searches = redis_client.info("commandstats")["cmdstat_xrange"]["calls"]
    assert searches < 10  # seek.lua takes some of them


def test_delivery_claim_of_many_senders_keeps_the_first(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seek, slow = SessionStore.seek, threading.Event()

    def slow_seek(store: SessionStore, sender: int, generation: int, tail: int) -> int:
        slow.wait(0.25)
        return seek(store, sender, generation, tail)

    monkeypatch.setattr(SessionStore, "seek", slow_seek)
    senders = range(11, 17)
    load(settings, [*(node(sender) for sender in senders), node(2, state=State.DOWN)])
    for sender in senders:
        PacketLog(settings, sender).append(CLUSTER, [frame(0, sender=sender)])
    engine = Engine(settings, settings.delivery_queue)
    engine.run(slice_s=2.5)
    engine.close()
    assert "lease lost" not in caplog.text


def test_delivery_release_of_many_logs_keeps_the_last(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    release, slow = SessionStore.release, threading.Event()

    def slow_release(store: SessionStore, *where: Any, **how: Any) -> Released:
        slow.wait(0.25)
        return release(store, *where, **how)

    monkeypatch.setattr(SessionStore, "release", slow_release)
    senders = range(11, 18)
    load(settings, [*(node(sender) for sender in senders), node(2, state=State.DOWN)])
    for sender in senders:
        PacketLog(settings, sender).append(CLUSTER, [frame(0, sender=sender)])
    engine = Engine(replace(settings, linger=30.0), settings.delivery_queue)
    engine.run(slice_s=0.5)
    engine.close()
    assert "lease lost" not in caplog.text


def test_delivery_unclaimable_senders_limit_wakeups(
    settings: Settings, redis_client: redis.Redis
) -> None:
    load(settings, [node(1, host="192.0.2.1"), node(2)])
    log, jobs = PacketLog(settings, 1), 0
    engine = Engine(settings, settings.delivery_queue)
    began = time.monotonic()
    for _ in range(200):
        if log.append(CLUSTER, [frame(0)]):
            jobs += 1
            engine.run()
        time.sleep(0.005)
    took_s = time.monotonic() - began
    engine.close()
    log.close()
    assert 1 <= jobs <= 1 + took_s * 1000 / HOLD_OFF_MS


def test_delivery_new_pending_sender_ends_pause(
    settings: Settings, redis_client: redis.Redis
) -> None:
    load(settings, [node(1), node(11), node(2)])
    PacketLog(settings, 1).append(CLUSTER, [frame(0)])
    store = SessionStore(settings, settings.delivery_queue, "test")
    store.begin()
    BacklogStore(settings).hold_off(settings.delivery_queue)
    assert not PacketLog(settings, 1).append(CLUSTER, [frame(1)])
    assert PacketLog(settings, 11).append(CLUSTER, [frame(2)])


def test_delivery_log_waiting_for_one_node_rests(
    settings: Settings, redis_client: redis.Redis, receiver: BinReceiver
) -> None:
    settings = replace(settings, backlog="replay")
    load(settings, [node(1), node_for(2, receiver), node(3)])
    NodeStore(settings).command(CLUSTER, 3, Event.SET_DOWN, Cause("test"))
    log, context = PacketLog(settings, 1), Context(settings)
    with delivering(settings):
        log.append(CLUSTER, [frame(0)])
        receiver.wait_for_frames(1)
        waiting = keys.waiting(settings.delivery_queue)
        wait_until(lambda: redis_client.sismember(waiting, "1"), message="sender waits")
        assert sweep.run(context) == 0
        assert redis_client.sismember(waiting, "1")
        load(settings, [node(1), node_for(2, receiver)])
        sweep.run(context)
        assert not redis_client.sismember(waiting, "1"), "the node it waited for is gone"
        wait_until(lambda: not redis_client.hexists(keys.committed(1), "gone"))
        wait_until(lambda: redis_client.hlen(keys.committed(1)) == 1, message="its offset too")
    context.close()


def test_delivery_node_down_in_mid_frame_counts_packets_once(
    settings: Settings, redis_client: redis.Redis
) -> None:
    with BinReceiver(receive_buffer=4096) as slow:
        load(settings, [node(1), node_for(2, slow)])
        log = PacketLog(settings, 1)
        with delivering(replace(settings, send_timeout=1.0)):
            slow.pause()
            append(log, [frame(n, size=1000) for n in range(1001)])
            wait_until(lambda: slow.open_connections, message="connected")
            time.sleep(0.1)
            NodeStore(settings).command(CLUSTER, 2, Event.SET_DOWN, Cause("test"))
            wait_until(
                lambda: stat(redis_client, 2, "sent") + stat(redis_client, 2, "skipped") >= 1001,
                message="all accounted for",
            )
            time.sleep(1.5)
        assert stat(redis_client, 2, "sent") + stat(redis_client, 2, "skipped") == 1001


def test_closing_guards_of_dead_workers_are_removed(
    settings: Settings, redis_client: redis.Redis, receiver: BinReceiver
) -> None:
    load(settings, [node(1), node_for(2, receiver)])
    redis_client.hset(keys.closing(1), "1/9/1700000000000", "1700000000000 dead")
    with delivering(settings):
        PacketLog(settings, 1).append(CLUSTER, [frame(0)])
        receiver.wait_for_frames(1)
        wait_until(lambda: not redis_client.exists(keys.closing(1)), message="no guard left")


def test_instance_closed_and_used_again_reads_fresh_snapshot(
    settings: Settings, redis_client: redis.Redis
) -> None:
    load(settings, [node(1), node(2)])
    instance = Clusterer(server_id=1, settings=settings)
    assert len(instance.get_nodes(1, "bin")) == 1
    instance.close()
    NodeStore(settings).command(CLUSTER, 2, Event.SET_DOWN, Cause("test"))
    assert instance.get_nodes(1, "bin") == []
    instance.close()


def test_delivery_trim_before_first_claim_counts_lost(
    settings: Settings, redis_client: redis.Redis, receiver: BinReceiver
) -> None:
    load(settings, [node(1), node_for(2, receiver)])
    log = PacketLog(settings, 1)
    for number in range(20):
        log.append(CLUSTER, [frame(number)])
    redis_client.xtrim(keys.log(1), maxlen=0, approximate=False)
    load(settings, [node(1), node_for(2, receiver), node(3, port=1)])
    log.append(CLUSTER, [frame(20)])
    with delivering(settings):
        receiver.wait_for_frames(1)
        wait_until(lambda: stat(redis_client, 2, "lost") == 20, message="loss counted")
    assert stat(redis_client, 3, "lost") == 0, "a node that came later has lost nothing"


def test_delivery_trim_before_new_cluster_served_counts_lost(
    settings: Settings, redis_client: redis.Redis, receiver: BinReceiver
) -> None:
    """The cluster's first packet comes while no packet is pending, and one of its nodes waits."""
    settings = replace(settings, backlog="replay")
    load(settings, [node(1), node_for(2, receiver)])
    own, waiting = node(1, cluster_id=2), node_for(3, receiver, cluster_id=2)
    load(settings, [own, replace(waiting, state=State.DOWN)], SECOND)
    log, store = PacketLog(settings, 1), NodeStore(settings)
    with delivering(settings):
        log.append(CLUSTER, [frame(0)])
        receiver.wait_for_frames(1)
        for number in range(1, 11):
            log.append(SECOND, [frame(number)])
        wait_until(
            lambda: redis_client.exists(keys.waiting(settings.delivery_queue)), message="waits"
        )
        redis_client.xtrim(keys.log(1), maxlen=0, approximate=False)
        store.command(SECOND, 3, Event.SET_UP, Cause("test"))
        log.append(SECOND, [frame(11)])
        receiver.wait_for_frames(2)
        wait_until(
            lambda: stat(redis_client, 3, "lost", cluster_id=2) == 10, message="loss counted"
        )


def test_delivery_unacknowledged_at_set_down_counts_once(
    settings: Settings, redis_client: redis.Redis
) -> None:
    """Written, then skipped as it went down, then the connection breaks: back to the written."""
    with BinReceiver(receive_buffer=4096) as peer, BinReceiver() as fine:
        load(settings, [node(1), node_for(2, peer), node_for(3, fine)])
        log, store = PacketLog(settings, 1), NodeStore(settings)
        with delivering(replace(settings, linger=30.0)):
            log.append(CLUSTER, [frame(0)])
            peer.wait_for_frames(1)
            peer.pause()
            log.append(CLUSTER, [frame(n, size=1000) for n in range(1, 101)])
            wait_until(lambda: stat(redis_client, 2, "sent") == 101, message="all in the kernel")
            store.command(CLUSTER, 2, Event.SET_DOWN, Cause("test"))
            log.append(CLUSTER, [frame(n) for n in range(101, 201)])
            wait_until(lambda: stat(redis_client, 2, "skipped") == 100, message="skipped")
            peer.reset_connections()
            log.append(CLUSTER, [frame(201)])
            wait_until(lambda: stat(redis_client, 2, "skipped") >= 101, message="skipped")
            wait_until(
                lambda: committed_up_to(redis_client, 202), message="everything is accounted for"
            )
            sent, skipped = (stat(redis_client, 2, name) for name in ("sent", "skipped"))
    assert sent + skipped == 202
    assert 1 <= sent < 101


def committed_up_to(client: redis.Redis, n: int) -> bool:
    return {int(value) for value in client.hvals(keys.committed_count(1))} == {n}


def test_delivery_half_skipped_batch_is_not_skipped_twice(
    settings: Settings, redis_client: redis.Redis
) -> None:
    """The node goes down while its socket is full, comes up again, and the job ends."""
    with BinReceiver(receive_buffer=4096) as slow, BinReceiver() as fine:
        load(settings, [node(1), node_for(2, slow), node_for(3, fine)])
        log, store = PacketLog(settings, 1), NodeStore(settings)
        with delivering(settings):
            log.append(CLUSTER, [frame(0)])
            slow.wait_for_frames(1)
            slow.pause()
            append(log, [frame(n, size=1000) for n in range(1, 1001)])
            fine.wait_for_frames(1001)
            store.command(CLUSTER, 2, Event.SET_DOWN, Cause("test"))
            log.append(CLUSTER, [frame(1001)])
            fine.wait_for_frames(1002)  # by then the worker has seen that node 2 is down
            store.command(CLUSTER, 2, Event.SET_UP, Cause("test"))
        slow.resume()
        with delivering(settings):
            log.append(CLUSTER, [frame(1002)])
            wait_until(lambda: numbers(slow)[-1] == 1002, message="goes on")
            wait_until(
                lambda: committed_up_to(redis_client, 1003), message="everything is accounted for"
            )
        got = len(set(numbers(slow)))
        sent, skipped = (stat(redis_client, 2, name) for name in ("sent", "skipped"))
    assert sent + skipped == 1003
    assert sent == got


def test_crash_with_cut_batch_counts_its_skips_once(
    settings: Settings, redis_client: redis.Redis
) -> None:
    """Node 2 goes down while its socket is full; the worker dies before the begun frame ends."""
    settings = replace(settings, send_timeout=30.0)
    with BinReceiver(receive_buffer=4096) as slow, BinReceiver() as fine:
        load(settings, [node(1), node_for(2, slow), node_for(3, fine)])
        log = PacketLog(settings, 1)
        with delivering(settings):
            slow.pause()
            append(log, [frame(n, size=1000) for n in range(1000)])
            fine.wait_for_frames(1000)
            NodeStore(settings).command(CLUSTER, 2, Event.SET_DOWN, Cause("test"))
            log.append(CLUSTER, [frame(1000)])
            fine.wait_for_frames(1001)
            wait_until(lambda: stat(redis_client, 3, "sent") == 1001, message="recorded")
            redis_client.delete(keys.lease(1))  # as that of a killed worker
            log.append(CLUSTER, [frame(1001)])
            wait_until(lambda: committed_up_to(redis_client, 1002), message="all given up")
    assert_accounted(settings)


def test_delivery_worker_without_lease_records_nothing(
    settings: Settings, redis_client: redis.Redis
) -> None:
    load(settings, [node(1), node(2)])
    PacketLog(settings, 1).append(CLUSTER, [frame(0)])
    first, second = (SessionStore(settings, settings.delivery_queue, name) for name in "ab")
    assert take_lease(first, 1)
    assert take_lease(second, 1) is None, "it is leased"
    redis_client.delete(keys.lease(1))
    assert take_lease(second, 1)
    late = Commit(1, [Move("1/2/7", 1, 1)], {"1/2/7/sent": 1}, needed_from=2)
    assert first.commit([late]) == {1}
    assert first.renew([1]).lost == {1}
    released = first.release(1, 1, 2, {"1/2/7": 2}, waiting=False, even_if_pending=False)
    assert released is Released.LOST
    assert not redis_client.exists(
        keys.committed(1), keys.stats(1), keys.closing(1), keys.committed_count(1)
    )
    assert redis_client.xlen(keys.log(1)) == 1
    assert second.commit([late]) == set()
    released = second.release(1, 1, 2, {"1/2/7": 2}, waiting=False, even_if_pending=False)
    assert released is Released.DELIVERED
    assert not first.renew_guard(1, "1/2/7", 2)
    assert not first.end_guard(1, "1/2/7", Move("1/2/7", 0, 0), {"1/2/7/sent": -1})
    assert redis_client.hgetall(keys.committed(1)) == {b"1/2/7": b"1"}
    assert second.end_guard(1, "1/2/7", None, {})
    assert not redis_client.exists(keys.closing(1))
