"""Metrics of one process: names, values, and what an occupied port does. No server of ours runs."""

from __future__ import annotations

import logging
import socket
import urllib.request

import pytest
from prometheus_client import generate_latest

from clusterer.listener.counters import Counters, Tally
from clusterer.membership import TRANSITIONS, State, apply
from clusterer.services.admin import up
from clusterer.services.metrics import InstanceCollector, JobMetrics, TickMetrics, serving
from clusterer.services.metrics.cluster import Highest
from clusterer.services.metrics.http import registry_of
from clusterer.services.metrics.state_changes import USUAL
from clusterer.settings import Settings
from clusterer.store import ClusterKey
from clusterer.store.labels import MAX_LABELS, OTHERS, Offers
from clusterer.wire import Packet
from tests.support.cluster import node
from tests.support.ports import free_port
from tests.support.processes import EVENTUALLY_S


def text_of(*collectors: object) -> str:
    return generate_latest(registry_of(collectors)).decode()  # type: ignore[arg-type]


def test_metrics_instance_shows_counters_of_listener() -> None:
    counters = Counters(packets=7, bytes=1400, connections_open=2, connections_refused=1)
    counters.received["ratelimit", 2] = Tally("ratelimit")
    counters.received["ratelimit", 2].add(5, 100)
    counters.others.add(2, 0)
    counters.drops["unknown source"] = 2
    handed_in = 'cluster="4",module="dialog",protocol="bin",sender="1"'
    offered = [(ClusterKey(4, "bin"), "dialog", 9, 1800)]
    text = text_of(InstanceCollector(1, counters, lambda: 0.25, offered))
    for line in (
        'clusterer_listener_packets_total{receiver="1"} 7.0',
        'clusterer_listener_bytes_total{receiver="1"} 1400.0',
        'clusterer_listener_open_connections{receiver="1"} 2.0',
        'clusterer_listener_connections_total{receiver="1",result="refused"} 1.0',
        'clusterer_listener_dropped_packets_total{reason="unknown source",receiver="1"} 2.0',
        'clusterer_received_packets_total{machine_id="2",module="ratelimit",receiver="1"} 5.0',
        # 16 bytes before the name, 8 between it and the payload
        'clusterer_received_bytes_total{machine_id="2",module="ratelimit",receiver="1"} 265.0',
        f"clusterer_offered_packets_total{{{handed_in}}} 9.0",
        f"clusterer_offered_bytes_total{{{handed_in}}} 1800.0",
        'clusterer_snapshot_age_seconds{receiver="1"} 0.25',
    ):
        assert line in text
    assert text.count("clusterer_received_packets_total{") == 1, "strangers have no labels"


def test_metrics_name_not_utf8_is_shown() -> None:
    name = "größe\udcff"
    counters, offers = Counters(), Offers()
    counters.received[name, 2] = Tally(name)
    packet = Packet(name, 1, 1)
    offers.add(ClusterKey(1, "bin"), [packet], [packet.encode()])
    text = text_of(InstanceCollector(1, counters, lambda: 0.25, offers))
    assert text.count(r'module="größe\\xff"') == 4, "packets and bytes, in and out"


def test_metrics_invented_modules_are_few_series() -> None:
    offers = Offers()
    for number in range(500):
        packet = Packet(f"invented {number}", 1, 1)
        offers.add(ClusterKey(1, "bin"), [packet], [packet.encode()])
    found = [(label, packets) for _, label, packets, _ in offers]
    assert len(found) == MAX_LABELS + 1
    assert sum(packets for _, packets in found) == 500
    assert (OTHERS, 500 - MAX_LABELS) in found


def test_metrics_counter_reduced_for_a_moment_does_not_fall() -> None:
    highest = Highest()
    shown = [highest.of({"lost": value})["lost"] for value in (5, 9, 7, 8, 9, 12)]
    assert shown == [5, 9, 9, 9, 9, 12]
    assert highest.of({"of another": 3}) == {"of another": 3}
    assert highest.of({"lost": 1}) == {"lost": 1}, "it was gone: this one is new"


def test_metrics_worker_shows_its_jobs() -> None:
    metrics = JobMetrics()
    metrics.observe("workers.probe", 0.02, succeeded=True)
    metrics.observe("workers.probe", 0.2, succeeded=False)
    text = text_of(*metrics.collectors())
    assert 'clusterer_job_duration_seconds_count{function="workers.probe"} 2.0' in text
    assert 'clusterer_job_duration_seconds_bucket{function="workers.probe",le="0.025"} 1.0' in text
    assert 'clusterer_job_failures_total{function="workers.probe"} 1.0' in text


def test_metrics_first_failure_is_increase() -> None:
    metrics = JobMetrics(["workers.sync"])
    zero = 'clusterer_job_failures_total{function="workers.sync"} 0.0'
    assert zero in text_of(*metrics.collectors())


def test_metrics_junk_job_counts_as_refused() -> None:
    metrics = JobMetrics()
    metrics.refused(3)
    counted = 'clusterer_job_failures_total{function="refused"} 3.0'
    assert counted in text_of(*metrics.collectors())


def test_metrics_every_state_change_starts_at_zero() -> None:
    known = set()
    for failed_attempts in (1, 2):
        for condition, event in TRANSITIONS:
            state = {"down": State.DOWN, "up": State.UP}.get(condition.value, State.PROBING)
            tries = {"probing": failed_attempts - 1, "disabled": failed_attempts}
            before = node(
                2,
                state=state,
                failed_attempts=failed_attempts,
                no_tries=tries.get(condition.value, 0),
            )
            after = apply(before, event, 1e6)
            if before.condition is condition and after.condition is not condition:
                known.add((condition, after.condition))
    assert set(USUAL) == known
    assert len(USUAL) == len(known)


def test_metrics_scheduler_shows_its_ticks() -> None:
    metrics = TickMetrics(lambda: True)
    metrics.late(0.02)
    text = text_of(*metrics.collectors())
    assert "clusterer_scheduler_active 1.0" in text
    assert 'clusterer_scheduler_tick_lateness_seconds_bucket{le="0.025"} 1.0' in text


def test_metrics_are_served_during_the_block_only() -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/metrics"
    with (
        serving(Settings(metrics_port=port), JobMetrics().collectors),
        urllib.request.urlopen(url, timeout=EVENTUALLY_S) as answer,
    ):
        assert b"process_resident_memory_bytes" in answer.read()
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(url, timeout=EVENTUALLY_S)


def test_metrics_port_0_serves_nothing() -> None:
    with serving(Settings(), lambda: pytest.fail("made")) as registry:
        assert registry is None


def test_metrics_port_occupied_is_logged_and_process_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with serving(Settings(metrics_port=port), JobMetrics().collectors):
            pass
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert f"metrics: cannot listen on 127.0.0.1 port {port}" in record.getMessage()


def test_metrics_children_of_up_have_own_ports() -> None:
    specs = list(up.children(Settings(metrics_port=9400, persistent_mode=True)))
    ports = {spec.name: spec.environment["CLUSTERER_METRICS_PORT"] for spec in specs}
    assert ports == {
        "node": "9400",
        "delivery": "9401",
        "maintenance": "9402",
        "database": "9403",
        "scheduler": "9404",
    }
    off = list(up.children(Settings()))
    assert {spec.environment["CLUSTERER_METRICS_PORT"] for spec in off} == {"0"}
