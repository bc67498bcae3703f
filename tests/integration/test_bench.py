"""The figures of the benchmark: the smallest run, and the report of its result."""

from __future__ import annotations

import io
import json
import socket
import sys
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from scripts.benchmarks.__main__ import OutOfTime, machine, measure, rounded
from scripts.benchmarks.measures import GROUPS, Measure, chosen, known_keys
from scripts.benchmarks.measures.many_senders import ManySenders, figures
from scripts.benchmarks.measures.peers import peers
from scripts.benchmarks.measures.throughput import aio, post, single
from scripts.benchmarks.plan import QUICK, Plan
from scripts.benchmarks.report import show
from scripts.benchmarks.roles.receivers import Arrival, Receivers, packet
from scripts.benchmarks.system import System
from scripts.benchmarks.targets import TARGETS, verdicts
from tests.support import docs
from tests.support.processes import wait_until

TINY = replace(QUICK, rounds=1, packets=200, naive_packets=2, paced_s=0.5)

PATH = {"deliveries_per_s", "packets_per_s", "cpu_us_per_delivery", "spread"}


@pytest.mark.redis
def test_single_has_three_paths_and_their_ratios() -> None:
    with ExitStack() as stack:
        system = System(stack)
        with system.measurement():
            results = rounded(single(system, TINY)) | {"machine": machine(system)}

    found = json.loads(json.dumps(results))
    assert set(found["single"]) == PATH | {"vs_naive", "vs_limit", "packets", "limit", "naive"}
    assert set(found["single"]["limit"]) == set(found["single"]["naive"]) == PATH
    assert found["single"]["deliveries_per_s"] > found["single"]["naive"]["deliveries_per_s"] > 0
    assert found["single"]["vs_limit"] > 0
    assert set(found["machine"]) == {"cores", "python", "redis", "kernel"}

    console = Console(record=True, width=120)
    show(found, console)
    text = console.export_text()
    assert "bare limit" in text
    assert "send_to vs naive" in text


@pytest.mark.redis
def test_peers_have_figures_and_ratios_of_what_is_installed() -> None:
    with ExitStack() as stack:
        system = System(stack)
        with system.measurement():
            found = peers(system, replace(TINY, batch_packets=4000))["peers"]
    with_nats = {"nats", "nats_flush"} & found.keys()
    assert len(with_nats) in (0, 2)
    assert found.keys() - with_nats >= {
        "vs_nats",
        "send_many",
        "post",
        "send_to",
        "redis",
        "redis_pipeline",
    }
    assert all(found[name].keys() == PATH for name in found.keys() - {"vs_nats"})
    assert found["vs_nats"].keys() >= ({"send_many", "post", "send_to"} if with_nats else set())
    for name, other in (("send_many", "nats"), ("post", "nats"), ("send_to", "nats_flush")):
        if with_nats:
            ratio = found[name]["deliveries_per_s"] / found[other]["deliveries_per_s"]
            assert found["vs_nats"][name] == pytest.approx(ratio)


@pytest.mark.redis
def test_growth_has_figures_by_size(monkeypatch: pytest.MonkeyPatch) -> None:
    growing = sys.modules["scripts.benchmarks.measures.growth"]  # the package has its function
    monkeypatch.setattr(growing, "SIZES", ((6, 2), (3, 1), (4, 1)))
    monkeypatch.setattr(growing, "ROWS", (6, 3))
    monkeypatch.setattr(growing, "REPEATS", 1)
    with ExitStack() as stack:
        system = System(stack)
        with system.measurement():
            found = growing.growth(system, TINY)["growth"]
    wanted = {"list_s", "scrape_s", "tick_idle_ms", "reload_s", "refresh_one_change"}
    assert found.keys() >= {*wanted, "top_cpu_s", "memory_mb", "by_senders", "exponent"}
    assert found["list_s"].keys() == {"3", "4", "6"}
    assert found["tick_idle_ms"].keys() == {"timeouts", "probe", "sweep"}
    assert found["refresh_one_change"].keys() == {"commands", "bytes"}
    assert found["reload_s"]["all_new"].keys() == found["memory_mb"].keys() == {"3", "6"}
    commands = [n for each in found["tick_commands"].values() for n in each.values()]
    assert max(commands) <= 20
    assert verdicts({"growth": found}) == [], "targets are for 1,000 nodes and more"


def test_growth_targets_take_the_highest_of_the_ticks() -> None:
    ticks = {name: {"10": 1.0, "1000": value} for name, value in (("probe", 3), ("sweep", 25.0))}
    found = {"tick_idle_ms": ticks}
    (target,) = (one for one in TARGETS if one.what == "tick with nothing due")
    verdict = target.judge(found)
    assert verdict is not None
    assert (verdict.value, verdict.met) == ("25.0 ms", False)


def test_peers_without_nats_leave_out_its_targets() -> None:
    assert verdicts({"peers": {"vs_nats": {}}}) == []
    shown = verdicts({"peers": {"vs_nats": {"send_many": 1.0, "send_to": 1.4}}})
    assert [one.met for one in shown] == [True, False]


@pytest.mark.redis
def test_post_has_ratio_cost_and_latency() -> None:
    with ExitStack() as stack:
        system = System(stack)
        with system.measurement():
            found = post(system, replace(TINY, batch_packets=4000))["post"]
    more = {"vs_send_many", "send_many_deliveries_per_s", "buffer_full", "latency_ms", "call_us"}
    assert found.keys() == PATH | more
    ratio = found["deliveries_per_s"] / found["send_many_deliveries_per_s"]
    assert found["vs_send_many"] == pytest.approx(ratio)
    assert 0 < found["latency_ms"]["p50"] <= found["latency_ms"]["p99"]
    assert found["latency_ms"]["samples"] == 4 * TINY.paced_s * 100
    assert found["cpu_us_per_delivery"] > 0
    judged = {one.what for one in verdicts({"post": found})}
    assert judged == {
        "post vs send_many",
        "post, CPU per delivery",
        "post, latency at 100/s, p50",
    }


@pytest.mark.redis
def test_aio_has_ratio_to_one_blocking_caller() -> None:
    with ExitStack() as stack:
        system = System(stack)
        with system.measurement():
            found = aio(system, TINY)["aio"]
    assert found.keys() == PATH | {"vs_blocking", "blocking_deliveries_per_s"}
    ratio = found["deliveries_per_s"] / found["blocking_deliveries_per_s"]
    assert found["vs_blocking"] == pytest.approx(ratio)
    assert [one.what for one in verdicts({"aio": found})] == ["100 tasks vs one blocking caller"]


MANY = {"p50", "p99", "packets_each", "slowest_packets", "starved", "duplicates", "jobs_per_s"}


@pytest.mark.redis
@pytest.mark.parametrize("shared", [True, False], ids=["one cluster", "clusters of their own"])
def test_bench_many_senders_reach_all_nodes(shared: bool) -> None:
    with ExitStack() as stack:
        system = System(stack)
        with system.measurement():
            found = ManySenders("some", 3, 20, nodes=2, shared=shared)(system, TINY)["some"]
    assert set(found) == MANY
    assert found["packets_each"] == found["slowest_packets"] == 10
    assert found["duplicates"] == 0
    assert 0 < found["p50"] <= found["p99"]


def test_bench_many_senders_counts_starved_and_slowest() -> None:
    on_time = [Arrival(node, sender, 5, 6) for node in (0, 1) for sender in (1, 2)]
    expected = {"p50": 1e-6, "p99": 1e-6, "slowest_packets": 1, "starved": 0}
    assert figures(on_time, (1, 2), 2) == expected
    late = [*on_time[:3], Arrival(1, 2, 5, 2 * 10**9)]
    assert figures(late, (1, 2), 2)["starved"] == 1
    assert figures(on_time[:3], (1, 2), 2)["slowest_packets"] == 0.5
    assert figures(on_time, (1, 2, 3), 2)["slowest_packets"] == 0


def test_receivers_count_a_repeated_packet_once() -> None:
    receivers = Receivers(2)
    early = packet(7).encode()
    receivers.record(on=True)
    twice, once = packet(7).encode(), packet(8).encode()
    connections = [socket.create_connection(("127.0.0.1", port)) for port in receivers.ports()]
    with connections[0] as first, connections[1] as second:
        first.sendall(twice + twice[:10])
        first.sendall(twice[10:] + once)
        second.sendall(twice + early)
        wait_until(lambda: receivers.received() == 3 and receivers.duplicates() == 2)
    found = {(one.node, one.sender) for one in receivers.arrivals()}
    assert found == {(0, 7), (0, 8), (1, 7)}
    assert all(0 <= one.latency_ms < 60_000 for one in receivers.arrivals())
    receivers.record(on=True)
    assert (receivers.received(), receivers.arrivals(), receivers.duplicates()) == (3, [], 0)


@pytest.mark.redis
def test_measure_that_fails_gives_null_and_the_next_runs() -> None:
    def fail(system: System, plan: Plan) -> dict[str, Any]:
        child = system.child(Receivers, 1)
        child.begin(Receivers.arrivals)
        child.popen.kill()
        child.answer()
        return {"first": child.answer()}

    def stop(system: System, plan: Plan) -> dict[str, Any]:
        raise OutOfTime

    measures = [
        Measure(("first",), fail),
        Measure(("second",), lambda system, plan: {"second": 0.12345}),
        Measure(("third", "fourth"), stop),
        Measure(("fifth",), fail),
    ]
    progress = Console(file=io.StringIO(), width=200)
    found = measure(measures, TINY, progress)
    del found["machine"]
    expected = dict.fromkeys(["first", "third", "fourth", "fifth"]) | {"second": 0.123}
    assert found == expected
    assert isinstance(progress.file, io.StringIO)
    text = progress.file.getvalue()
    assert "failed: first: scripts.benchmarks.roles" in text
    assert "out of time while measuring third, fourth" in text


def test_rounded_keeps_three_decimals_below_thousand() -> None:
    found = {"a": 1234.5, "b": [0.12345, 999.9999], "c": 7, "d": None, "e": {"f": 2.0}}
    assert rounded(found) == {"a": 1234, "b": [0.123, 1000.0], "c": 7, "d": None, "e": {"f": 2.0}}


def test_quick_skips_long_measurements_unless_named() -> None:
    quick = {key for measure in chosen([], quick=True) for key in measure.keys}
    assert {"single", "batch", "latency_cold_ms", "deliveries_per_s"} <= quick
    assert not {"memory", "many_senders_200", "many_senders_1000"} & quick
    full = {key for measure in chosen([], quick=False) for key in measure.keys}
    assert {"memory", "many_senders_200", "many_senders_1000"} <= full
    assert "listener" not in full
    every = {key for measure in chosen(list(GROUPS), quick=False) for key in measure.keys}
    assert every == set(known_keys())
    assert [measure.keys for measure in chosen(["memory"], quick=True)] == [("memory",)]


def test_targets_are_of_measured_figures() -> None:
    assert {target.needs for target in TARGETS} <= set(known_keys())


def rows(table: str) -> list[list[str]]:
    """Return the cells of a printed table's rows; one that goes on below has its first empty."""
    found = [line.strip("│").split("│") for line in table.splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in row] for row in found]


@pytest.mark.parametrize("number", range(len(GROUPS)), ids=list(GROUPS))
def test_page_shows_every_figure_and_target(number: int) -> None:
    """Names and targets are compared; the figures themselves are of one host."""
    keys = [key for measure in list(GROUPS.values())[number] for key in measure.keys]
    block = docs.blocks(docs.read("benchmarks/run.md"), "console")[number]
    others, _, targets = block.partition("Other figures\n")[2].partition("Targets\n")
    shown = {row[0].partition(" ")[0] for row in rows(others)} | {"single", "batch"}
    assert set(keys) <= shown
    wanted = [(one.what, one.target) for one in TARGETS if one.needs in keys]
    assert [(row[0], row[1]) for row in rows(targets)] == wanted


def test_page_explains_every_figure() -> None:
    page = docs.read("benchmarks.md")
    assert [key for key in known_keys() if f"`{key}`" not in page] == []


def test_verdict_at_the_bound_is_met_and_beyond_is_not() -> None:
    met = {verdict.what: verdict.met for verdict in verdicts({"check_us": 10.0})}
    assert met == {"check, p50": True}
    assert not verdicts({"check_us": 10.1})[0].met
    assert verdicts({"check_us": None}) == []
    flat, steep = {"1": 100, "64": 120}, {"1": 100, "64": 121}
    assert [verdicts({"send_to_us": costs})[0].met for costs in (flat, steep)] == [True, False]
