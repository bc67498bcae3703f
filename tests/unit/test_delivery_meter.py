"""Latency and modules: what a write of many packets adds, by whatever entries they came in."""

from __future__ import annotations

from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest

from clusterer.delivery.meter import BOUNDS_MS, Flow, Meter, Stamps
from clusterer.services.metrics import DeliveryCollector
from clusterer.services.metrics.http import registry_of
from clusterer.store import ClusterKey
from clusterer.store.client import Clock
from clusterer.store.labels import MAX_LABELS, OTHERS, ModuleLabels

NOW_MS = 1_700_000_100_000
RUNS = st.lists(st.tuples(st.integers(0, 120_000), st.integers(1, 40)), min_size=1, max_size=30)


def clock_at(now_ms: int) -> Clock:
    """Return a clock that shows ``now_ms`` at monotonic second 0."""
    clock = Clock()
    clock.tell(now_ms, 0.0)
    return clock


def flow_at(clock: Clock) -> Flow:
    return Flow(clock, ModuleLabels())


@given(RUNS, st.data())
def test_meter_many_packets_count_like_single_ones(
    ages: list[tuple[int, int]], data: st.DataObject
) -> None:
    runs = [(NOW_MS - age, packets) for age, packets in sorted(ages, reverse=True)]
    each = [ms for ms, packets in runs for _ in range(packets)]
    first = data.draw(st.integers(0, len(each) - 1))
    end = data.draw(st.integers(first + 1, len(each)))
    flow = flow_at(clock_at(NOW_MS))
    flow.wrote(Stamps(runs), first, end, 0.0)
    expected = [0] * (len(BOUNDS_MS) + 1)
    for ms in each[first:end]:
        expected[bisect_left(BOUNDS_MS, NOW_MS - ms)] += 1
    assert flow.buckets == expected
    assert flow.sum_ms == sum(NOW_MS - ms for ms in each[first:end])


@pytest.mark.parametrize(
    ("age_ms", "bucket"), [(0, 0), (1, 0), (2, 1), (3, 2), (60_000, 14), (60_001, 15)]
)
def test_meter_bound_belongs_to_its_bucket(age_ms: int, bucket: int) -> None:
    flow = flow_at(clock_at(NOW_MS))
    flow.wrote(Stamps([(NOW_MS - age_ms, 3)]), 0, 3, 0.0)
    assert flow.buckets[bucket] == 3
    assert flow.sum_ms == 3 * age_ms


def test_meter_redis_time_follows_local_clock() -> None:
    clock = Clock()
    assert clock.ms(5.0) is None
    clock.tell(1_700_000_000_250, 5.0)
    assert clock.ms(5.0) == 1_700_000_000_250
    assert clock.ms(6.5) == 1_700_000_001_750


def test_meter_without_redis_time_has_no_latency() -> None:
    flow = flow_at(Clock())
    flow.wrote(Stamps([(NOW_MS, 1)]), 0, 1, 0.0)
    assert sum(flow.buckets) == 0


def test_meter_clock_set_back_counts_packets_once() -> None:
    flow = flow_at(clock_at(NOW_MS))
    flow.wrote(Stamps([(NOW_MS + 50, 2), (NOW_MS - 70, 3), (NOW_MS, 4)]), 0, 9, 0.0)
    assert flow.buckets[0] == sum(flow.buckets) == 9
    assert flow.sum_ms == 0


def test_meter_latency_sums_senders_and_sent_names_them() -> None:
    meter = Meter()
    meter.clock.tell(NOW_MS // 1000 * 1000, 0.0)
    for sender, age_ms in ((1, 4), (3, 700)):
        flow = meter.flow(sender, ClusterKey(1, "bin"), 2)
        flow.count([(b"ul", sender, 200 * sender), (b"dialog", 1, 50)])
        flow.count([(b"ul", 2, 100)])
        flow.wrote(Stamps([(NOW_MS - age_ms, 10)]), 0, 10, 0.0)
    text = generate_latest(registry_of([DeliveryCollector(meter)])).decode()
    node = 'cluster="1",machine_id="2",protocol="bin"'
    ul = 'cluster="1",machine_id="2",module="ul",protocol="bin"'
    dialog = 'cluster="1",machine_id="2",module="dialog",protocol="bin"'
    latency = "clusterer_delivery_latency_seconds"
    for line in (
        f'clusterer_sent_packets_total{{{ul},sender="1"}} 3.0',
        f'clusterer_sent_packets_total{{{ul},sender="3"}} 5.0',
        f'clusterer_sent_bytes_total{{{ul},sender="1"}} 300.0',
        f'clusterer_sent_bytes_total{{{ul},sender="3"}} 700.0',
        f'clusterer_sent_bytes_total{{{dialog},sender="3"}} 50.0',
        f'{latency}_bucket{{cluster="1",le="0.002",machine_id="2",protocol="bin"}} 0.0',
        f'{latency}_bucket{{cluster="1",le="0.005",machine_id="2",protocol="bin"}} 10.0',
        f'{latency}_bucket{{cluster="1",le="1.0",machine_id="2",protocol="bin"}} 20.0',
        f'{latency}_bucket{{cluster="1",le="+Inf",machine_id="2",protocol="bin"}} 20.0',
        f"{latency}_count{{{node}}} 20.0",
        f"{latency}_sum{{{node}}} 7.04",
    ):
        assert line in text


def test_meter_invented_modules_make_few_series() -> None:
    meter = Meter()
    for machine_id in (2, 3):
        flow = meter.flow(1, ClusterKey(1, "bin"), machine_id)
        for number in range(500):
            flow.count([(b"invented %d" % number, 2, 100), (b"\xff" * 65, 1, 500)])
        assert len(flow.sent) <= MAX_LABELS + 1
        assert sum(sent.packets for sent in flow.sent.values()) == 1500
        assert sum(sent.bytes for sent in flow.sent.values()) == 500 * 600
        assert flow.sent[OTHERS].packets == 1500 - MAX_LABELS * 2
    text = generate_latest(registry_of([DeliveryCollector(meter)])).decode()
    assert text.count("\nclusterer_sent_packets_total{") == 2 * (MAX_LABELS + 1)
