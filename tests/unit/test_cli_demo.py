"""Observations and output of the demo. No process runs."""

from __future__ import annotations

import io
import json
from collections import deque
from dataclasses import replace

import pytest

from clusterer.cli.demo.observations import Observations
from clusterer.cli.demo.processes import make_nodes
from clusterer.cli.demo.screen import Screen, live_table
from clusterer.membership import Condition, State
from clusterer.processes import Line
from tests.support.seeding import make_node

UP, PROBING, DISABLED = Condition.UP, Condition.PROBING, Condition.DISABLED


def said(**what: object) -> Line:
    return Line("A", json.dumps(what), False)


def seen_everything() -> Observations:
    observed = Observations(packets_delivered=5)
    observed.add_line(said(machine_id=1, own=3, remote={"2": 4}, nodes=[2]))
    observed.add_line(said(machine_id=2, own=3, remote={"1": 4}, nodes=[1], took_ms=[2.5]))
    observed.states = [UP, PROBING, DISABLED, UP]
    return observed


def test_observed_with_everything_is_complete() -> None:
    observed = seen_everything()
    assert observed.complete
    assert observed.as_json(12.34) == {
        "ok": True,
        "replicated_a_to_b": True,
        "replicated_b_to_a": True,
        "states_seen": ["up", "probing", "disabled", "up"],
        "delivery_latency_ms": 2.5,
        "packets_delivered": 5,
        "seconds": 12.3,
        "failure": None,
    }


@pytest.mark.parametrize(
    "lacking",
    [
        {"replicated": {(1, 2)}},
        {"replicated": {(2, 1)}},
        {"states": [UP, PROBING, DISABLED]},
        {"states": [PROBING, DISABLED, UP]},
        {"states": [UP, DISABLED, PROBING, UP]},
        {"states": [UP, PROBING, UP]},
        {"latencies_ms": []},
        {"packets_delivered": 0},
        {"failure": "not seen"},
    ],
    ids=str,
)
def test_observed_with_one_thing_missing_is_not_complete(lacking: dict[str, object]) -> None:
    observed = replace(seen_everything(), **lacking)  # type: ignore[arg-type]  # its own fields
    assert not observed.complete
    assert not observed.as_json(1.0)["ok"]


def test_observed_accepts_states_between_the_expected_ones() -> None:
    states = [UP, PROBING, UP, PROBING, DISABLED, UP]
    assert replace(seen_everything(), states=states).complete


def test_observed_ignores_a_remote_counter_of_zero() -> None:
    observed = Observations()
    observed.add_line(said(machine_id=1, own=3, remote={"2": 0}, nodes=[]))
    assert not observed.replicated


def test_observed_keeps_changes_of_state_only() -> None:
    observed = Observations()
    for state, tries in [(1, 0), (1, 0), (2, 1), (2, 2), (2, 3), (1, 0)]:
        observed.add_nodes({2: make_node(2, state=State(state), no_tries=tries)}, 2)
    assert observed.states == [UP, PROBING, DISABLED, UP]


def test_observed_keeps_logs_apart_from_reports() -> None:
    observed = Observations()
    observed.add_line(Line("A", '{"machine_id": 1}', True))
    observed.add_line(Line("A", "no JSON", False))
    assert observed.logs == {"A": deque(['{"machine_id": 1}', "no JSON"])}
    assert not observed.reports


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def show(stream: io.StringIO, observed: Observations) -> str:
    screen, (a, b) = Screen(stream, live=True), make_nodes()
    with screen.showing():
        screen.step("something happened")
        screen.refresh(live_table(observed, {a: 4711, b: None}, now=2), "something happens")
    screen.conclude(observed)
    return stream.getvalue()


@pytest.fixture
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


@pytest.mark.usefixtures("_plain_environment")
def test_screen_in_a_pipe_prints_plain_lines_only() -> None:
    text = show(io.StringIO(), seen_everything())
    assert "something happened" in text
    assert "The demo observed all steps" in text
    assert "\x1b" not in text
    assert "4711" not in text, "the table is for terminals"
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.usefixtures("_plain_environment")
def test_screen_in_a_terminal_shows_a_live_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    observed = seen_everything()
    observed.nodes = {
        1: make_node(1),
        2: make_node(2, state=State.PROBING, no_tries=3, last_attempt=1, duration=5),
    }
    text = show(Terminal(), observed)
    assert "\x1b" in text
    for word in ("4711", "killed", "disabled", "3/3", "4 s"):
        assert word in text


def test_screen_after_a_failure_prints_the_last_log_lines() -> None:
    observed = Observations(failure="not seen within 3 s: anything")
    observed.add_line(Line("delivery worker", "cannot", True))
    text = show(io.StringIO(), observed)
    assert "FAILED: not seen within 3 s: anything" in text
    assert "delivery worker: cannot" in text
