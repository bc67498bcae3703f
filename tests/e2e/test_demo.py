"""`clusterer demo` with its real processes: what the demo observes and what it leaves behind."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import docs
from tests.support.pids import descendants, wait_until_gone
from tests.support.processes import EVENTUALLY_S, ChildProcess, spawn, wait_until
from tests.support.transcripts import is_excerpt, plain, shown

pytestmark = [pytest.mark.serial, pytest.mark.slow]  # the demo ends if a step takes too long

PROCESSES = 6
"""Redis, A, B, two workers, scheduler."""


@contextmanager
def demo(temporary: Path, *options: str) -> Iterator[ChildProcess]:
    environment = {
        "TMPDIR": str(temporary),
        # Must not matter:
        "CLUSTERER_REDIS_URL": "redis://127.0.0.1:1",
        "CLUSTERER_DB_URL": "mysql://user@127.0.0.1:1/nothing",
        "CLUSTERER_SERVER_ID": "77",
    }
    with spawn(["-m", "clusterer", "demo", *options], environment) as child:
        yield child


def all_started(child: ChildProcess) -> list[int]:
    """Wait until all of the demo's processes run and have work, and return their pids."""
    child.wait_for_output("A -> B")
    pids = descendants(child.pid)
    assert len(pids) == PROCESSES
    return pids


def test_demo_observes_everything_as_the_docs_show(tmp_path: Path) -> None:
    with demo(tmp_path, "--json") as child:
        pids = all_started(child)
        code = child.wait(60)
        output = child.output()
        wait_until_gone(pids)
    assert code == 0, output
    seen = json.loads(output.splitlines()[-1])
    assert seen["replicated_a_to_b"]
    assert seen["replicated_b_to_a"]
    assert seen["states_seen"] == ["up", "probing", "disabled", "up"]
    assert 0 < seen["delivery_latency_ms"] < 1000
    assert seen["packets_delivered"] > 50
    assert seen["seconds"] < 45
    assert "\x1b" not in output
    assert list(tmp_path.iterdir()) == []
    assert_is_what_the_docs_show(output.rpartition("{")[0].replace(str(tmp_path), "/tmp"))


def assert_is_what_the_docs_show(output: str) -> None:
    for page, command in (
        (docs.command_section("demo"), "clusterer demo"),
        (docs.section("getting-started.md", "Demonstration"), "scripts/demo"),
    ):
        assert is_excerpt(numberless(shown(page, command)), numberless(output)), output


def numberless(text: str) -> str:
    """Return it without numbers, and which server was found."""
    return re.sub(r"\d+|valkey|redis|clusterer-demo-\w+", "", plain(text))


def test_demo_interrupted_leaves_nothing_behind(tmp_path: Path) -> None:
    with demo(tmp_path) as child:
        pids = all_started(child)
        child.signal(signal.SIGINT)
        child.signal(signal.SIGINT)
        assert child.wait(EVENTUALLY_S) == 130
        wait_until_gone(pids)
        assert "Traceback" not in child.output()
    assert list(tmp_path.iterdir()) == []


def test_demo_killed_leaves_no_process_behind(tmp_path: Path) -> None:
    with demo(tmp_path) as child:
        pids = all_started(child)
        child.kill()
        wait_until_gone(pids)


def test_demo_fails_when_a_process_ends_unexpectedly(tmp_path: Path) -> None:
    with demo(tmp_path, "--json", "--keep") as child:
        pids = all_started(child)
        text = wait_until(lambda: [x for x in child.output().splitlines() if "scheduler" in x])[0]
        pid = int(text.rpartition(" ")[2])
        assert pid in pids
        os.kill(pid, signal.SIGKILL)
        assert child.wait(EVENTUALLY_S) == 1
        output = child.output()
        wait_until_gone(pids)
    assert "FAILED: scheduler ended unexpectedly (SIGKILL)" in output
    seen = json.loads(output.splitlines()[-1])
    assert not seen["ok"]
    assert "scheduler" in seen["failure"]
    (kept,) = tmp_path.iterdir()
    assert (kept / "clusterer.db").exists()
