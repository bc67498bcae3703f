"""Dashboard and alerts in a real Prometheus that scrapes real processes, well and in trouble."""

from __future__ import annotations

import contextlib
import itertools
import math
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import pytest

from clusterer.jobs import connect, keys, queue
from clusterer.settings import MAINTENANCE_QUEUE, Settings
from tests.support.broken_paths import break_path
from tests.support.cluster import node_for
from tests.support.dashboard import MONITORING, PANELS, query_of
from tests.support.laboratory import Laboratory, laboratory
from tests.support.observing import captured_packets
from tests.support.processes import EVENTUALLY_S, rounds, wait_until
from tests.support.prometheus import Prometheus, Sample, needs_prometheus
from tests.support.receiver import BinReceiver
from tests.support.redis_server import RedisServer
from tests.support.scale import scaled

RULES = (MONITORING / "alerts.yml").read_text()
ALERTS = set(re.findall(r"(?m)^ +- alert: Clusterer(\w+)$", RULES))

SOONER_S = {"BacklogOld": 1, "DeliverySlow": 0.5, "SchedulerStuck": 3, "SnapshotOld": 2}
"""Limits for alerts on which a test cannot wait as long as an operator."""

WITHIN_S = EVENTUALLY_S

QUIET_S = scaled(60, 180)
"""How long a healthy cluster is watched."""


@pytest.fixture
def server(own_redis_server: Callable[[], RedisServer]) -> RedisServer:
    return own_redis_server()


@pytest.fixture
def lab(server: RedisServer) -> Iterator[Laboratory]:
    settings = Settings(
        redis_url=server.url,
        accept_pipes_from=1,
        accept_pipes_timeout=2,
        replicate_pipes_to=1,
        log_max_packets=1000,
    )
    with laboratory(settings) as running:
        yield running


@pytest.fixture
def prometheus(lab: Laboratory) -> Iterator[Prometheus]:
    with Prometheus(lab.ports.values(), impatient(RULES)) as running:
        wait_until(lambda: all_scraped(running, len(lab.ports)), WITHIN_S, "all are scraped")
        yield running


def impatient(rules: str) -> str:
    """Return the alert rules without the times for which an alert waits."""
    rules = re.sub(r"(?m)^( +for:) .*$", r"\1 0s", rules)
    for name, limit in SOONER_S.items():
        rule = rf"(alert: Clusterer{name}\n +expr: .* >) \d+\n"
        rules, found = re.subn(rule, rf"\1 {limit}\n", rules)
        assert found == 1, name
    return rules


def all_scraped(prometheus: Prometheus, count: int) -> bool:
    targets = prometheus.targets()
    return len(targets) == count and all(target["health"] == "up" for target in targets)


@pytest.mark.serial
@needs_prometheus
@pytest.mark.slow
def test_prometheus_queries_answer_and_alerts_fire_in_time(
    server: RedisServer, lab: Laboratory, prometheus: Prometheus
) -> None:
    def fires(*names: str) -> None:
        for name in names:
            wait_until(partial(is_firing, prometheus, name), WITHIN_S, f"{name} fires")
        fired.update(names)

    fired: set[str] = set()
    # Before the first scrape there were no metrics.
    wait_until(lambda: prometheus.firing() == set(), WITHIN_S, "all is well")
    assert faults_of_rules(prometheus) == []

    lab.add_dead_node()
    lab.send_broken(600)
    fires("NodeNotUp", "PacketsDropped")
    break_path(lab.settings, 9, 1)
    fires("PathBroken")
    lab.modules = ("dialog",)  # of which node 1 knows nothing, as is usual beside OpenSIPS
    lab.send("dialog", 600)
    fires("ModuleTimeout")
    lab.modules = ("ratelimit", "dialog")
    for _ in range(7):
        lab.sender.set_state(1, 1, 2, "bin")
        lab.sender.set_state(1, 1, 1, "bin")
    fires("NodeFlaps")
    assert faults_in_the_end(prometheus) == []

    with connect(lab.settings) as client:
        queue(MAINTENANCE_QUEUE, client).enqueue_call("workers.probe", args=("one too many",))
        fires("JobsFail")
        lab.processes["delivery"].terminate()
        fires("NoWorkers", "BacklogOld")
        lab.send("dialog", 3000)
        time.sleep(2 * SOONER_S["DeliverySlow"])  # the packets are late, however soon a worker is
        lab.start("delivery")
        fires("PacketsLost", "DeliverySlow")
        client.set(keys.LOCK, "a holder that does no work", ex=60)
        fires("SchedulerStuck")
    server.stop()
    fires("RedisAway", "SnapshotOld")
    (failures,) = prometheus.query("sum(clusterer_job_failures_total)")
    assert failures.value == 1, "what had to end because Redis is away has not failed"
    lab.processes["scheduler"].kill()
    fires("NoMetrics")
    assert fired == ALERTS
    assert faults_of_rules(prometheus) == []


@needs_prometheus
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_healthy_mixed_cluster_has_no_warning_and_no_alert(
    lab: Laboratory, prometheus: Prometheus
) -> None:
    """Beside two OpenSIPS nodes, played from a capture, for minutes; rules without their delays.

    Node 2 has all modules. Node 3 runs no ratelimit, and sends of dialog and usrloc only.
    """
    wait_until(lambda: prometheus.firing() == set(), WITHIN_S, "no alert once all is scraped")
    said = {name: len(process.output()) for name, process in lab.processes.items()}
    fired: set[str] = set()
    with BinReceiver() as third, ExitStack() as stack:
        lab.add_node(node_for(3, third))
        for machine_id, modules in ((2, {"ratelimit", "dialog", "ul"}), (3, {"dialog", "ul"})):
            stack.enter_context(playing(lab.node_port, machine_id, modules))
        for _ in rounds(QUIET_S, 1):
            fired |= prometheus.firing()
    assert fired == set()
    for name, process in lab.processes.items():
        lines = process.output()[said[name] :].splitlines()
        assert [line for line in lines if " INFO " not in line] == [], name


@contextmanager
def playing(port: int, machine_id: int, modules: set[str]) -> Iterator[None]:
    """Send the captured packets of some modules again and again, 20 packets a second."""
    frames = [
        packet._replace(machine_id=machine_id).encode()
        for packet in captured_packets()
        if packet.module in modules
    ]
    stop = threading.Event()

    def work() -> None:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            for frame in itertools.cycle(frames):
                connection.sendall(frame)
                if stop.wait(0.05):
                    return

    thread = threading.Thread(target=work, name=f"node {machine_id}")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(EVENTUALLY_S)


def is_firing(prometheus: Prometheus, name: str) -> bool:
    return f"Clusterer{name}" in prometheus.firing()


def faults_of_rules(prometheus: Prometheus) -> list[dict[str, Any]]:
    """Return the rules whose last evaluation did not go well."""
    return [rule for rule in prometheus.rules() if rule["health"] != "ok"]


def faults_in_the_end(prometheus: Prometheus) -> list[str]:
    """Return the dashboard's faults that remain after there was time for data to come."""
    with contextlib.suppress(TimeoutError):
        wait_until(lambda: not faults_of_dashboard(prometheus), WITHIN_S)
    return faults_of_dashboard(prometheus)


def faults_of_dashboard(prometheus: Prometheus) -> list[str]:
    """Return the faults in the dashboard's present values."""
    return [fault for panel in PANELS for fault in _faults_of(panel, prometheus)]


def _faults_of(panel: dict[str, Any], prometheus: Prometheus) -> Iterator[str]:
    lines: list[str] = []
    for target in panel["targets"]:
        query = query_of(target)
        found = prometheus.query(query)
        if not found:
            yield f"no data: {query}"
        for sample in found:
            if not _is_number(sample, query):
                yield f"{sample}: {query}"
            lines.append(_line(target["legendFormat"], sample))
    if len(set(lines)) < len(lines):
        yield f"several lines of one name: {panel['title']} {sorted(lines)}"


def _line(legend: str, sample: Sample) -> str:
    """Return what Grafana calls a line; fails if the series lacks one of the labels."""
    return re.sub(r"{{(\w+)}}", lambda name: sample.labels[name[1]], legend)


def _is_number(sample: Sample, query: str) -> bool:
    # A quantile of nothing is none: a dead node has no latency.
    return math.isfinite(sample.value) or ("quantile" in query and math.isnan(sample.value))
