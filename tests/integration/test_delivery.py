"""Delivery over real sockets from a real Redis: order, failures, membership, accounting."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest
import redis

from clusterer.membership import Condition, Event
from clusterer.services import Context
from clusterer.services.periodic import probe, sweep
from clusterer.settings import Settings
from clusterer.store import Cause, NodeStore, keys
from clusterer.store.packets import PacketLog
from tests.support.cluster import CLUSTER, delivering, load, node, node_for, numbers, stat
from tests.support.frames import frame
from tests.support.processes import LATE_S, rounds, wait_until
from tests.support.receiver import BinReceiver

SETTINGS = {"linger": 0.5, "send_timeout": 1.0}


@pytest.fixture
def receivers() -> Iterator[list[BinReceiver]]:
    with ExitStack() as stack:
        yield [stack.enter_context(BinReceiver()) for _ in range(3)]


def load_receivers(settings: Settings, receivers: list[BinReceiver], **more: object) -> None:
    others = [node_for(i, r, **more) for i, r in enumerate(receivers, start=2)]
    load(settings, [node(1), *others])


def condition(settings: Settings, machine_id: int) -> Condition:
    found, _ = NodeStore(settings).read(CLUSTER, machine_id)
    assert found is not None
    return found.condition


def released(client: redis.Redis, settings: Settings) -> bool:
    return not client.scard(keys.pending(settings.delivery_queue)) and not client.exists(
        keys.lease(1)
    )


def test_delivery_to_every_node_is_once_and_in_order(
    settings: Settings, redis_client: redis.Redis, receivers: list[BinReceiver]
) -> None:
    load_receivers(settings, receivers)
    log = PacketLog(settings, 1)
    with delivering(settings):
        for number in range(300):
            log.append(CLUSTER, [frame(number)])
        log.append(CLUSTER, [frame(number) for number in range(300, 3000)])
        for receiver in receivers:
            receiver.wait_for_frames(3000)
        wait_until(lambda: released(redis_client, settings), message="log given back")
    for machine_id, receiver in enumerate(receivers, start=2):
        assert numbers(receiver) == list(range(3000))
        assert stat(redis_client, machine_id, "sent") == 3000
    assert redis_client.xlen(keys.log(1)) == 0
    assert not redis_client.hgetall(keys.closing(1))


def test_delivery_to_sender_and_other_clusters_is_none(
    settings: Settings, receivers: list[BinReceiver]
) -> None:
    own, other, peer = receivers
    load(settings, [node_for(1, own), node_for(2, peer)])
    foreign = node_for(3, other)
    object.__setattr__(foreign, "cluster_id", 2)
    load(settings, [foreign], CLUSTER._replace(cluster_id=2))
    log = PacketLog(settings, 1)
    with delivering(settings):
        log.append(CLUSTER, [frame(1)])
        log.append(CLUSTER._replace(cluster_id=2), [frame(2)])
        log.append(CLUSTER, [frame(3)])
        peer.wait_for_frames(2)
        other.wait_for_frames(1)
    assert numbers(peer) == [1, 3]
    assert numbers(other) == [2]
    assert own.frame_count == 0


def test_delivery_node_not_up_skips_and_counts_packets(
    settings: Settings, redis_client: redis.Redis, receivers: list[BinReceiver]
) -> None:
    load_receivers(settings, receivers)
    NodeStore(settings).command(CLUSTER, 3, Event.SET_DOWN, Cause("test"))
    log = PacketLog(settings, 1)
    with delivering(settings):
        log.append(CLUSTER, [frame(n) for n in range(50)])
        receivers[0].wait_for_frames(50)
        wait_until(lambda: stat(redis_client, 3, "skipped") == 50, message="skips counted")
        NodeStore(settings).command(CLUSTER, 3, Event.SET_UP, Cause("test"))
        log.append(CLUSTER, [frame(50)])
        receivers[1].wait_for_frames(1)
    assert numbers(receivers[1]) == [50]
    assert numbers(receivers[0]) == list(range(51))


def test_delivery_node_set_down_gets_nothing_until_up(
    settings: Settings, redis_client: redis.Redis, receivers: list[BinReceiver]
) -> None:
    load_receivers(settings, receivers)
    log, store = PacketLog(settings, 1), NodeStore(settings)
    with delivering(replace(settings, linger=30.0)):
        log.append(CLUSTER, [frame(0)])
        receivers[1].wait_for_frames(1)
        store.command(CLUSTER, 3, Event.SET_DOWN, Cause("test"))
        for number in range(1, 51):
            log.append(CLUSTER, [frame(number)])
        receivers[0].wait_for_frames(51)
        wait_until(lambda: stat(redis_client, 3, "skipped") == 50, message="skipped")
        store.command(CLUSTER, 3, Event.SET_UP, Cause("test"))
        log.append(CLUSTER, [frame(51)])
        receivers[1].wait_for_frames(2)
    assert numbers(receivers[1]) == [0, 51]


def test_replay_on_gives_returned_node_missed_packets(
    settings: Settings, redis_client: redis.Redis, receivers: list[BinReceiver]
) -> None:
    settings = replace(settings, backlog="replay")
    load_receivers(settings, receivers)
    store, log = NodeStore(settings), PacketLog(settings, 1)
    with delivering(settings):
        log.append(CLUSTER, [frame(0)])
        receivers[1].wait_for_frames(1)
        store.command(CLUSTER, 3, Event.SET_DOWN, Cause("test"))
        log.append(CLUSTER, [frame(n) for n in range(1, 1200)])
        receivers[0].wait_for_frames(1200)
        waiting = keys.waiting(settings.delivery_queue)
        wait_until(lambda: redis_client.sismember(waiting, "1"), message="sender waits")
        store.command(CLUSTER, 3, Event.SET_UP, Cause("test"))
        sweep.run(Context(settings))
        receivers[1].wait_for_frames(1200)
    assert numbers(receivers[1]) == list(range(1200))
    assert stat(redis_client, 3, "skipped") == 0


def test_replay_on_to_returned_peer_sends_missed_once_in_order(
    settings: Settings, redis_client: redis.Redis, receivers: list[BinReceiver]
) -> None:
    """No command sets the node down: sending fails, probes find it, the sweep ends the wait."""
    settings = replace(settings, backlog="replay", probe_interval=0.2)
    load_receivers(settings, receivers, failed_attempts=99)
    context, sent = Context(settings), 0
    log = PacketLog(settings, 1)

    def send(seconds: float) -> None:
        nonlocal sent
        swept_at = 0.0
        for _ in rounds(seconds):
            log.append(CLUSTER, [frame(sent)])
            sent += 1
            probe.run(context)
            if time.monotonic() - swept_at > 1.0:
                swept_at = time.monotonic()
                sweep.run(context)

    with delivering(settings):
        send(0.5)
        receivers[1].wait_for_frames(sent)
        receivers[1].stop()
        send(5.0)
        wait_until(lambda: condition(settings, 3) is Condition.PROBING, message="probing")
        receivers[1].start()
        send(1.5)
        for receiver in receivers:
            receiver.wait_for_frames(sent)
        wait_until(lambda: stat(redis_client, 3, "sent") == sent, message="counted")
        wait_until(lambda: released(redis_client, settings), message="log given back")
    for receiver in receivers:
        assert numbers(receiver) == list(range(sent))
    assert stat(redis_client, 3, "skipped") == stat(redis_client, 3, "lost") == 0


def test_delivery_connection_refused_sets_node_to_probing(
    settings: Settings, redis_client: redis.Redis, receivers: list[BinReceiver]
) -> None:
    load_receivers(settings, receivers)
    receivers[1].stop()
    log = PacketLog(settings, 1)
    with delivering(settings):
        log.append(CLUSTER, [frame(n) for n in range(20)])
        receivers[0].wait_for_frames(20)
        receivers[2].wait_for_frames(20)
        wait_until(lambda: condition(settings, 3) is Condition.PROBING, message="probing")
        wait_until(lambda: stat(redis_client, 3, "skipped") == 20, message="skipped")
    found, _ = NodeStore(settings).read(CLUSTER, 3)
    assert found is not None
    assert found.no_tries == 1
    assert stat(redis_client, 3, "failed") == 1


def test_delivery_peer_never_reading_fails_and_delays_no_other(
    settings: Settings, redis_client: redis.Redis, receivers: list[BinReceiver]
) -> None:
    load_receivers(settings, receivers)
    receivers[1].pause()
    log = PacketLog(settings, 1)
    with delivering(replace(settings, send_timeout=2 * LATE_S)):
        for start in range(0, 15_000, 500):
            log.append(CLUSTER, [frame(n, size=1000) for n in range(start, start + 500)])
        receivers[0].wait_for_frames(15_000)
        receivers[2].wait_for_frames(15_000)
        wait_until(lambda: condition(settings, 3) is Condition.PROBING, message="probing")
    assert numbers(receivers[2]) == list(range(15_000))


def test_delivery_restarted_peer_continues_without_failure(
    settings: Settings, redis_client: redis.Redis, receivers: list[BinReceiver]
) -> None:
    load_receivers(settings, receivers)
    log = PacketLog(settings, 1)
    with delivering(settings):
        log.append(CLUSTER, [frame(0)])
        receivers[1].wait_for_frames(1)
        time.sleep(1.1)  # older than a connection whose end counts against the node
        receivers[1].close_connections()
        wait_until(lambda: not receivers[1].open_connections, message="closed")
        log.append(CLUSTER, [frame(1)])
        receivers[1].wait_for_frames(2)
    assert numbers(receivers[1]) == [0, 1]
    assert condition(settings, 3) is Condition.UP
    assert stat(redis_client, 3, "failed") == 0


def test_delivery_peer_resetting_connections_goes_to_probing(
    settings: Settings, receivers: list[BinReceiver]
) -> None:
    load_receivers(settings, receivers)
    log = PacketLog(settings, 1)
    with delivering(settings):
        sent = itertools.count(1)

        def failed() -> int:
            """Return the number of packets once node 3 is probing."""
            number = next(sent)
            log.append(CLUSTER, [frame(number)])
            receivers[1].reset_connections()
            return number if condition(settings, 3) is Condition.PROBING else 0

        receivers[0].wait_for_frames(wait_until(failed, message="node 3 is probing"))


def test_delivery_handovers_keep_order_to_slow_reader(
    settings: Settings, redis_client: redis.Redis
) -> None:
    total = 6000
    settings = replace(settings, send_timeout=5.0)
    with BinReceiver(receive_buffer=16384) as slow:
        load(settings, [node(1), node_for(2, slow)])
        log = PacketLog(settings, 1)
        with ExitStack() as stack:
            for _ in range(3):
                stack.enter_context(delivering(settings, slice_s=0.2))
            for start in range(0, total, 100):
                log.append(CLUSTER, [frame(n, size=1000) for n in range(start, start + 100)])
                slow.pause()
                time.sleep(0.01)
                slow.resume()
            slow.wait_for_frames(total)
    assert numbers(slow) == list(range(total))
    assert len(slow.connections) > 2, "there were hand-overs"
    assert all(connection.error is None for connection in slow.connections)


def test_delivery_new_node_gets_no_earlier_packets(
    settings: Settings, redis_client: redis.Redis, receivers: list[BinReceiver]
) -> None:
    log = PacketLog(settings, 1)
    load(settings, [node(1), node_for(2, receivers[0])])
    log.append(CLUSTER, [frame(n) for n in range(10)])
    time.sleep(0.005)  # generations are told apart by the millisecond
    load(settings, [node(1), node_for(2, receivers[0]), node_for(3, receivers[1])])
    log.append(CLUSTER, [frame(n) for n in range(10, 20)])
    with delivering(settings):
        receivers[0].wait_for_frames(20)
        receivers[1].wait_for_frames(10)
    assert numbers(receivers[1]) == list(range(10, 20))


def test_delivery_node_with_new_address_gets_packets_there(
    settings: Settings, receivers: list[BinReceiver]
) -> None:
    log = PacketLog(settings, 1)
    load(settings, [node(1), node_for(2, receivers[0])])
    with delivering(settings):
        log.append(CLUSTER, [frame(n) for n in range(10)])
        receivers[0].wait_for_frames(10)
        load(settings, [node(1), node_for(2, receivers[1])])
        log.append(CLUSTER, [frame(n) for n in range(10, 20)])
        receivers[1].wait_for_frames(10)
        wait_until(lambda: not receivers[0].open_connections, message="old connection closed")
    assert numbers(receivers[0]) == list(range(10))
    assert numbers(receivers[1]) == list(range(10, 20))


def test_delivery_packets_trimmed_before_count_as_lost(
    settings: Settings, redis_client: redis.Redis, receivers: list[BinReceiver]
) -> None:
    load_receivers(settings, receivers)
    log = PacketLog(settings, 1)
    with delivering(settings):
        log.append(CLUSTER, [frame(0)])
        receivers[0].wait_for_frames(1)
        wait_until(lambda: released(redis_client, settings), message="log given back")
    for number in range(1, 11):
        log.append(CLUSTER, [frame(number)])
    redis_client.xtrim(keys.log(1), minid="8", approximate=False)
    with delivering(settings):
        receivers[0].wait_for_frames(5)
        wait_until(lambda: stat(redis_client, 2, "lost") == 6, message="loss counted")
    assert numbers(receivers[0]) == [0, 7, 8, 9, 10]


def test_delivery_log_trimmed_at_end_counts_lost(
    settings: Settings, redis_client: redis.Redis, receivers: list[BinReceiver]
) -> None:
    load_receivers(settings, receivers)
    log = PacketLog(settings, 1)
    with delivering(settings):
        log.append(CLUSTER, [frame(0)])
        receivers[0].wait_for_frames(1)
        wait_until(lambda: released(redis_client, settings), message="log given back")
    log.append(CLUSTER, [frame(n) for n in range(1, 11)])
    redis_client.xtrim(keys.log(1), maxlen=0, approximate=False)
    with delivering(settings):
        wait_until(lambda: stat(redis_client, 2, "lost") == 10, message="loss counted")
        wait_until(lambda: released(redis_client, settings), message="log given back")


def test_delivery_offset_ahead_of_log_is_clamped(
    settings: Settings,
    redis_client: redis.Redis,
    receivers: list[BinReceiver],
    caplog: pytest.LogCaptureFixture,
) -> None:
    load_receivers(settings, receivers)
    log = PacketLog(settings, 1)
    with delivering(settings):
        log.append(CLUSTER, [frame(n) for n in range(10)])
        receivers[0].wait_for_frames(10)
        wait_until(lambda: released(redis_client, settings), message="log given back")
    redis_client.delete(keys.log(1))
    redis_client.hset(keys.counters(1), mapping={"sequence": 5, "1:bin": 5})
    with delivering(settings):
        log.append(CLUSTER, [frame(100)])
        receivers[0].wait_for_frames(11)
    assert numbers(receivers[0]) == [*range(10), 100]
    assert "ahead" in caplog.text


def test_delivery_log_without_counters_goes_on(
    settings: Settings, redis_client: redis.Redis, receivers: list[BinReceiver]
) -> None:
    load_receivers(settings, receivers)
    log = PacketLog(settings, 1)
    with delivering(settings):
        log.append(CLUSTER, [frame(n) for n in range(10)])
        receivers[0].wait_for_frames(10)
        redis_client.delete(keys.counters(1))
        log.append(CLUSTER, [frame(10), frame(11)])
        receivers[0].wait_for_frames(12)
    assert numbers(receivers[0]) == list(range(12))
    assert int(redis_client.hget(keys.counters(1), "sequence") or 0) == 12


def test_delivery_sender_address_of_other_host_is_not_claimed(
    settings: Settings,
    redis_client: redis.Redis,
    receivers: list[BinReceiver],
    caplog: pytest.LogCaptureFixture,
) -> None:
    load(settings, [node(1, host="192.0.2.1"), node_for(2, receivers[0])])
    PacketLog(settings, 1).append(CLUSTER, [frame(0)])
    with delivering(settings):
        wait_until(
            lambda: "sender 1: not delivered by this worker" in caplog.text, message="said so"
        )
    (said,) = (vars(r) for r in caplog.records if "not delivered by" in r.message)
    assert (said["cluster"], said["machine_id"], said["url"]) == (1, 1, "bin:192.0.2.1:1")
    assert receivers[0].frame_count == 0
    with delivering(replace(settings, allow_foreign_source=True)):
        receivers[0].wait_for_frames(1)


def test_delivery_sender_without_row_logs_fate_of_packets(
    settings: Settings, receivers: list[BinReceiver], caplog: pytest.LogCaptureFixture
) -> None:
    load(settings, [node_for(2, receivers[0])])
    with delivering(settings):
        for number in range(2):
            PacketLog(settings, 1).append(CLUSTER, [frame(number)])
            receivers[0].wait_for_frames(number + 1)
    assert caplog.text.count("sender 1: no row in the table") == 1


def test_delivery_frames_come_from_sender_address(
    settings: Settings, receivers: list[BinReceiver]
) -> None:
    load(settings, [node(1, host="127.0.0.7"), node_for(2, receivers[0])])
    PacketLog(settings, 1).append(CLUSTER, [frame(0)])
    with delivering(settings):
        receivers[0].wait_for_frames(1)
    assert receivers[0].connections[0].peer[0] == "127.0.0.7"


def test_delivery_sender_with_new_address_sends_from_it_in_order(
    settings: Settings, redis_client: redis.Redis
) -> None:
    settings = replace(settings, linger=30.0)
    with BinReceiver() as peer, delivering(settings):
        load(settings, [node(1, host="127.0.0.7"), node_for(2, peer)])
        log, changed_at = PacketLog(settings, 1), 0.0
        for number in range(500):
            if number == 250:
                load(settings, [node(1, host="127.0.0.8"), node_for(2, peer)])
                changed_at = time.monotonic()
            log.append(CLUSTER, [frame(number)])
            time.sleep(0.002)
        peer.wait_for_frames(500)
        wait_until(lambda: stat(redis_client, 2, "sent") == 500, message="counted")
    assert numbers(peer) == list(range(500))
    assert [c.peer[0] for c in peer.connections] == ["127.0.0.7", "127.0.0.8"]
    assert peer.connections[1].chunks[0][0] - changed_at < 5.0 + LATE_S


def test_delivery_goes_on_after_redis_was_away(
    own_redis_server: object, receivers: list[BinReceiver]
) -> None:
    server = own_redis_server()  # type: ignore[operator]
    settings = Settings(redis_url=server.url, linger=1.0)
    load_receivers(settings, receivers)
    log = PacketLog(settings, 1)
    with delivering(settings):
        log.append(CLUSTER, [frame(0)])
        receivers[0].wait_for_frames(1)
        time.sleep(1.2)  # appendfsync everysec
        server.kill()
        server.start()
        wait_until(lambda: log.append(CLUSTER, [frame(1)]) in (True, False), message="append")
        receivers[0].wait_for_frames(2)
    assert numbers(receivers[0])[-1] == 1


def test_delivery_reads_only_clusters_in_use(
    settings: Settings, redis_client: redis.Redis, receivers: list[BinReceiver]
) -> None:
    """Neither thousands of other clusters nor one that was removed make every read dear."""
    load_receivers(settings, receivers)
    for cluster_id in range(2, 202):
        load(settings, [node(1, cluster_id=cluster_id)], CLUSTER._replace(cluster_id=cluster_id))
    log, gone = PacketLog(settings, 1), CLUSTER._replace(cluster_id=5)
    with delivering(replace(settings, linger=5.0)):
        log.append(gone, [frame(0)])
        load(settings, [], gone)
        log.append(CLUSTER, [frame(0)])
        receivers[0].wait_for_frames(1)
        before = redis_client.info("commandstats")
        for number in range(1, 51):
            log.append(CLUSTER, [frame(number)])
            receivers[0].wait_for_frames(number + 1)
        after = redis_client.info("commandstats")
    calls = {name: after[name]["calls"] - before.get(name, {"calls": 0})["calls"] for name in after}
    assert calls["cmdstat_mget"] <= calls["cmdstat_xread"] + 10
    listed = calls.get("cmdstat_smembers", 0) + calls.get("cmdstat_sort", 0)
    assert listed <= 20, "clusters are not listed again with each read"
