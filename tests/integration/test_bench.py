"""The benchmark's figures: the tiniest run, and what is made of its result."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import replace

import pytest
from rich.console import Console

from scripts.benchmarks.machine import machine
from scripts.benchmarks.measures import GROUPS, chosen, known_keys
from scripts.benchmarks.measures.throughput import single
from scripts.benchmarks.plan import QUICK
from scripts.benchmarks.report import show
from scripts.benchmarks.system import System
from scripts.benchmarks.targets import TARGETS, verdicts
from tests.support import docs

TINY = replace(QUICK, rounds=1, packets=200, naive_packets=2)

PATH = {"deliveries_per_s", "packets_per_s", "cpu_us_per_delivery", "spread"}


@pytest.mark.redis
def test_single_measures_three_paths_and_their_ratios() -> None:
    with ExitStack() as stack:
        system = System(stack)
        results = single(system, TINY) | {"machine": machine(system.client)}

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


def test_quick_leaves_the_long_measurements_out_unless_asked_for() -> None:
    quick = {key for measure in chosen([], quick=True) for key in measure.keys}
    assert {"single", "batch", "latency_cold_ms", "deliveries_per_s"} <= quick
    assert "memory" not in quick
    full = {key for measure in chosen([], quick=False) for key in measure.keys}
    assert "memory" in full
    assert "listener" not in full
    every = {key for measure in chosen(["send", "receive"], quick=False) for key in measure.keys}
    assert every == set(known_keys())
    assert [measure.keys for measure in chosen(["memory"], quick=True)] == [("memory",)]


def test_every_target_is_of_a_figure_that_is_measured() -> None:
    assert {target.needs for target in TARGETS} <= set(known_keys())


def rows(table: str) -> list[list[str]]:
    """Return the cells of a printed table's rows; one that goes on below has its first empty."""
    found = [line.strip("│").split("│") for line in table.splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in row] for row in found]


@pytest.mark.parametrize("number", [0, 1], ids=["send", "receive"])
def test_the_runs_on_the_page_have_every_figure_and_target(number: int) -> None:
    """What they are called, and what targets are; the figures themselves are of one machine."""
    keys = [key for measure in list(GROUPS.values())[number] for key in measure.keys]
    block = docs.blocks(docs.read("benchmarks/run.md"), "console")[number]
    others, _, targets = block.partition("Other figures\n")[2].partition("Targets\n")
    shown = {row[0] for row in rows(others)} | {"single", "batch"}
    assert set(keys) <= shown
    wanted = [(one.what, one.target) for one in TARGETS if one.needs in keys]
    assert [(row[0], row[1]) for row in rows(targets)] == wanted


def test_every_figure_is_explained_on_the_page() -> None:
    page = docs.read("benchmarks.md")
    assert [key for key in known_keys() if f"`{key}`" not in page] == []


def test_a_figure_is_met_up_to_its_target_and_not_beyond() -> None:
    met = {verdict.what: verdict.met for verdict in verdicts({"check_us": 10.0})}
    assert met == {"check, p50": True}
    assert not verdicts({"check_us": 10.1})[0].met
    assert verdicts({"check_us": None}) == []
    flat, steep = {"1": 100, "64": 120}, {"1": 100, "64": 121}
    assert [verdicts({"send_to_us": costs})[0].met for costs in (flat, steep)] == [True, False]
