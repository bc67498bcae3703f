"""The meter of real deliveries agrees with the receivers: packets, modules and times."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import redis

from clusterer.delivery.meter import BOUNDS_MS, Flow, Meter
from clusterer.membership import State
from clusterer.settings import Settings
from clusterer.store.packets import PacketLog
from clusterer.wire import PacketBuilder
from tests.support.cluster import CLUSTER, assert_accounted, delivering, load, node, node_for, stat
from tests.support.frames import frame
from tests.support.processes import wait_until
from tests.support.receiver import BinReceiver

SETTINGS = {"linger": 0.5, "send_timeout": 8.0}


@pytest.fixture
def receivers() -> Iterator[list[BinReceiver]]:
    with ExitStack() as stack:
        yield [stack.enter_context(BinReceiver(receive_buffer=4096)) for _ in range(2)]


def load_receivers(settings: Settings, receivers: list[BinReceiver]) -> None:
    load(settings, [node(1), *(node_for(i, r) for i, r in enumerate(receivers, start=2))])


def flow_to(meter: Meter, machine_id: int) -> Flow:
    return meter.flows[1, CLUSTER, machine_id]


def frame_of(module: str, size: int) -> bytes:
    head = PacketBuilder(module, 1, 1)
    return head.push_str(b"x" * (size - head.size - 4)).build().encode()


def sent_of(flow: Flow) -> dict[str, tuple[int, int]]:
    """Return packets and bytes by module."""
    return {module: (sent.packets, sent.bytes) for module, sent in flow.sent.items()}


def redis_ms(client: redis.Redis) -> int:
    seconds, micros = client.time()
    return int(seconds) * 1000 + int(micros) // 1000


def test_meter_counts_packets_and_bytes_once_per_node(
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
        assert sent_of(flow) == {"ratelimit": (1000, 1000 * len(frame(0)))}
        assert sum(flow.buckets) == 1000
        assert flow.sum_ms < 1000 * 5000


@pytest.mark.parametrize("down", [(), (4,)], ids=["all up", "one down"])
def test_meter_latency_includes_time_in_log(
    settings: Settings,
    redis_client: redis.Redis,
    receivers: list[BinReceiver],
    down: tuple[int, ...],
) -> None:
    """The node that is down is at the end of the log at once: the first read is of those behind."""
    up = [node_for(i, r) for i, r in enumerate(receivers, start=2)]
    load(settings, [node(1), *up, *(node(i, state=State.DOWN) for i in down)])
    began = redis_ms(redis_client)
    PacketLog(settings, 1).append(CLUSTER, [frame(n) for n in range(5)])
    wait_until(lambda: redis_ms(redis_client) > began + 250, message="packets that have waited")
    meter = Meter()
    with delivering(settings, meter=meter):
        receivers[0].wait_for_frames(5)
    most = redis_ms(redis_client) - began
    flow = flow_to(meter, 2)
    assert sum(flow.buckets[bisect_left(BOUNDS_MS, 250) :]) == 5
    assert 5 * 200 <= flow.sum_ms <= 5 * most


def test_meter_stuck_node_is_late_alone_and_counts_once(
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
        log.append(CLUSTER, [frame(n, size=2000) for n in range(1, 3000)])
        healthy.wait_for_frames(3000)
        began = redis_ms(redis_client)
        wait_until(
            lambda: redis_ms(redis_client) > began + 500, message="some time without reading"
        )
        before = sum(flow_to(meter, 2).buckets)
        stuck.resume()
        stuck.wait_for_frames(3000)
    late, fast = flow_to(meter, 2), flow_to(meter, 3)
    size = len(frame(0)) + 2999 * 2000
    assert sent_of(late) == sent_of(fast) == {"ratelimit": (3000, size)}
    assert sum(late.buckets) == sum(fast.buckets) == 3000
    assert before < 2000, "it was stuck"
    assert late.sum_ms >= fast.sum_ms + (3000 - before) * 400


def test_meter_modules_are_counted_apart_at_every_node(
    settings: Settings, redis_client: redis.Redis, receivers: list[BinReceiver]
) -> None:
    slow, fast = receivers
    load_receivers(settings, receivers)
    meter = Meter()
    log = PacketLog(settings, 1)
    mixed = [frame_of(("dialog", "ul")[n % 3 == 0], 1000 + n % 7) for n in range(1500)]
    alike = [frame_of("ratelimit", 2000)] * 1500
    frames = [*mixed, *alike, frame_of("ul", 100)]
    with delivering(settings, meter=meter):
        log.append(CLUSTER, frames[:1])
        slow.wait_for_frames(1)
        slow.pause()
        log.append(CLUSTER, frames[1:-1])
        log.append(CLUSTER, frames[-1:])
        fast.wait_for_frames(len(frames))
        part = sent_of(flow_to(meter, 2))
        assert 0 < sum(packets for packets, _ in part.values()) < len(frames)
        slow.resume()
        slow.wait_for_frames(len(frames))
        wait_until(lambda: stat(redis_client, 2, "sent") == len(frames), message="all is recorded")
    for machine_id, receiver in ((2, slow), (3, fast)):
        got = Counter(packet.module for packet in receiver.packets)
        size: Counter[str] = Counter()
        for packet in receiver.packets:
            size[packet.module] += len(packet.encode())
        flow = flow_to(meter, machine_id)
        assert sent_of(flow) == {module: (got[module], size[module]) for module in got}
        assert sum(sent.packets for sent in flow.sent.values()) == sum(flow.buckets)
        assert stat(redis_client, machine_id, "sent") == sum(flow.buckets)


def test_meter_after_broken_connection_never_decreases(
    settings: Settings, redis_client: redis.Redis, receivers: list[BinReceiver]
) -> None:
    unlucky, other = receivers
    load_receivers(settings, receivers)
    meter = Meter()
    log = PacketLog(settings, 1)
    sizes = {"dialog": 1000, "ul": 3000}
    frames = [frame_of(module, size) for module, size in sizes.items()] * 500
    with delivering(settings, meter=meter):
        log.append(CLUSTER, frames[:2])
        unlucky.wait_for_frames(2)
        unlucky.pause()
        log.append(CLUSTER, frames[2:])
        other.wait_for_frames(len(frames))
        before = sent_of(flow_to(meter, 2))
        unlucky.reset_connections()
        unlucky.resume()
        wait_until(lambda: stat(redis_client, 2, "sent") == len(frames), message="all is recorded")
    flow = flow_to(meter, 2)
    for module, (packets, size) in sent_of(flow).items():
        assert packets >= len(frames) // 2
        assert packets >= before[module][0]
        assert size == packets * sizes[module]
    assert sum(sent.packets for sent in flow.sent.values()) == sum(flow.buckets) > len(frames)
    assert_accounted(settings)
