"""What the meter shows of real deliveries is what the receivers got, and when."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import redis

from clusterer.delivery.meter import BOUNDS_MS, Flow, Meter
from clusterer.settings import Settings
from clusterer.store.packets import PacketLog
from tests.support.cluster import CLUSTER, delivering, frame, load, node, node_for
from tests.support.processes import wait_until
from tests.support.receiver import BinReceiver


@pytest.fixture
def settings(redis_client: redis.Redis, redis_url: str) -> Settings:
    return Settings(redis_url=redis_url, linger=0.5, send_timeout=8.0)


@pytest.fixture
def receivers() -> Iterator[list[BinReceiver]]:
    with ExitStack() as stack:
        yield [stack.enter_context(BinReceiver(receive_buffer=4096)) for _ in range(2)]


def load_receivers(settings: Settings, receivers: list[BinReceiver]) -> None:
    load(settings, [node(1), *(node_for(i, r) for i, r in enumerate(receivers, start=2))])


def flow_to(meter: Meter, machine_id: int) -> Flow:
    return meter.flows[1, CLUSTER, machine_id]


def redis_ms(client: redis.Redis) -> int:
    seconds, micros = client.time()
    return int(seconds) * 1000 + int(micros) // 1000


def test_every_packet_and_byte_is_counted_once_for_each_node(
    settings: Settings, receivers: list[BinReceiver]
) -> None:
    load_receivers(settings, receivers)
    meter = Meter()
    log = PacketLog(settings, 1)
    with delivering(settings, meter=meter):
        for number in range(100):
            log.append(CLUSTER, [frame(number)])
        log.append(CLUSTER, [frame(number) for number in range(100, 1000)])
        for receiver in receivers:
            receiver.wait_for_frames(1000)
    for machine_id in (2, 3):
        flow = flow_to(meter, machine_id)
        assert flow.bytes == 1000 * len(frame())
        assert sum(flow.buckets) == 1000
        assert flow.sum_ms < 1000 * 5000


def test_time_in_the_log_counts(
    settings: Settings, redis_client: redis.Redis, receivers: list[BinReceiver]
) -> None:
    load_receivers(settings, receivers)
    began = redis_ms(redis_client)
    PacketLog(settings, 1).append(CLUSTER, [frame(n) for n in range(5)])
    wait_until(lambda: redis_ms(redis_client) > began + 250, 5, "packets that have waited")
    meter = Meter()
    with delivering(settings, meter=meter):
        receivers[0].wait_for_frames(5)
    most = redis_ms(redis_client) - began
    flow = flow_to(meter, 2)
    assert sum(flow.buckets[bisect_left(BOUNDS_MS, 250) :]) == 5
    assert 5 * 200 <= flow.sum_ms <= 5 * most


def test_a_stuck_node_is_late_by_itself_and_its_packets_count_once(
    settings: Settings, redis_client: redis.Redis, receivers: list[BinReceiver]
) -> None:
    stuck, healthy = receivers
    load_receivers(settings, receivers)
    meter = Meter()
    log = PacketLog(settings, 1)
    with delivering(settings, meter=meter):
        log.append(CLUSTER, [frame(0)])
        stuck.wait_for_frames(1)
        stuck.pause()
        log.append(CLUSTER, [frame(n, 2000) for n in range(1, 3000)])
        healthy.wait_for_frames(3000)
        began = redis_ms(redis_client)
        wait_until(lambda: redis_ms(redis_client) > began + 500, 5, "some time without reading")
        before = sum(flow_to(meter, 2).buckets)
        stuck.resume()
        stuck.wait_for_frames(3000)
    late, fast = flow_to(meter, 2), flow_to(meter, 3)
    size = len(frame(0)) + 2999 * 2000
    assert (late.bytes, fast.bytes) == (size, size)
    assert sum(late.buckets) == sum(fast.buckets) == 3000
    assert before < 2000, "it was stuck"
    assert late.sum_ms >= fast.sum_ms + (3000 - before) * 400
