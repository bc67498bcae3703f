"""`clusterer up` with its real processes: start, restart, stop, and SIGKILL."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from clusterer.provisioning.table import NewRow
from clusterer.services import Context
from clusterer.settings import Settings
from tests.support import docs
from tests.support.pids import alive, descendants, wait_until_gone
from tests.support.ports import free_port
from tests.support.processes import (
    EVENTUALLY_S,
    LATE_S,
    ChildProcess,
    child_environment,
    spawn,
    wait_until,
)
from tests.support.provisioning import provision
from tests.support.transcripts import is_excerpt, plain, shown

COMMON = ("redis", "node", "delivery", "maintenance", "scheduler")


def make_table(directory: Path, machine_ids: Iterable[int]) -> None:
    """Make a data directory, and its table with these nodes on free ports."""
    hosts = {machine_id: f"127.0.0.{machine_id}" for machine_id in machine_ids}
    rows = [NewRow(1, number, f"bin:{host}:{free_port(host)}") for number, host in hosts.items()]
    with closing(Context(Settings(data_dir=str(directory)))) as context:
        provision(context, *rows)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a data directory whose table has two nodes."""
    directory = tmp_path / "data"
    make_table(directory, (1, 2))
    return directory


@contextmanager
def up(data: Path, *options: str) -> Iterator[ChildProcess]:
    with spawn(["-m", "clusterer", "up", "--data-dir", str(data), *options]) as child:
        yield child


@dataclass(frozen=True)
class Shared:
    """`clusterer up` that runs for several tests, and its data directory."""

    child: ChildProcess
    data: Path


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    """A cluster with three nodes. A test may kill what `up` starts again, and set node 3 down."""
    directory = tmp_path_factory.mktemp("shared") / "data"
    make_table(directory, (1, 2, 3))
    with up(directory, "--replicate-pipes-to", "1", "--accept-pipes-from", "1") as child:
        all_started(child)
        yield Shared(child, directory)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "clusterer", *arguments],
        capture_output=True,
        text=True,
        timeout=EVENTUALLY_S,
        env=child_environment(),
        check=False,
    )


def all_started(child: ChildProcess, count: int = len(COMMON)) -> list[int]:
    child.wait_for_output("scheduler started, pid")
    child.wait_for_output("scheduler: now active")
    pids = descendants(child.pid)
    assert len(pids) == count
    return pids


def pid_of(child: ChildProcess, name: str, nth: int = -1) -> int:
    found = re.findall(rf"{name} started(?: again)?, pid (\d+)", child.output())
    return int(found[nth])


def test_up_without_configuration_gives_example_rows(tmp_path: Path) -> None:
    with up(tmp_path) as child:
        all_started(child)
        assert_is_what_getting_started_shows(child.output(), tmp_path)
        listed = run("list", "--json", "--data-dir", str(tmp_path))
        (cluster,) = json.loads(listed.stdout)["clusters"]
        assert [node["machine_id"] for node in cluster["nodes"]] == [1, 2]


def assert_is_what_getting_started_shows(output: str, data: Path) -> None:
    """All but its last line: whether the example's address is free here is not our affair."""
    page = docs.section("getting-started.md", "One host without configuration")
    on_page = shown(page, "clusterer up --replicate-pipes-to 1 --accept-pipes-from 1")
    ours = plain(output, {str(data): "/home/sip/.local/share/clusterer"})
    assert is_excerpt(plain(on_page.partition("…")[0] + "…"), ours), output


def test_up_provisioned_rows_survive_restart(data: Path) -> None:
    for _ in range(2):
        with up(data) as child:
            all_started(child)
            done = run("set-status", "1", "2", "0", "bin", "--data-dir", str(data))
            assert done.returncode == 0, done.stderr
            listed = run("list", "--data-dir", str(data))
            assert "down" in listed.stdout
            assert child.terminate() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_up_signal_ends_all_processes_within_5_s(data: Path, number: signal.Signals) -> None:
    with up(data) as child:
        pids = all_started(child)
        started = time.monotonic()
        child.signal(number)
        child.signal(number)
        assert child.wait(EVENTUALLY_S) == 0
        assert time.monotonic() - started < 5 + LATE_S
        assert not any(map(alive, pids))
        assert "Traceback" not in child.output()


def test_up_frozen_child_is_killed_in_time(data: Path) -> None:
    with up(data) as child:
        pids = all_started(child)
        os.kill(pid_of(child, "node"), signal.SIGSTOP)
        os.kill(pid_of(child, "maintenance"), signal.SIGSTOP)
        started = time.monotonic()
        assert child.terminate() == 0
        assert time.monotonic() - started < 5 + LATE_S
        assert not any(map(alive, pids))


def test_up_supervisor_killed_leaves_no_process(data: Path) -> None:
    with up(data) as child:
        pids = all_started(child)
        child.kill()
        wait_until_gone(pids)


def test_up_killed_child_is_started_again(shared: Shared) -> None:
    old = pid_of(shared.child, "node")
    os.kill(old, signal.SIGKILL)
    shared.child.wait_for_output("node ended (SIGKILL)")
    shared.child.wait_for_output("node started again")
    new = pid_of(shared.child, "node")
    assert new != old
    wait_until(lambda: new in descendants(shared.child.pid))


def test_up_killed_redis_restarts_with_its_data(shared: Shared) -> None:
    data = str(shared.data)
    assert run("set-status", "1", "3", "0", "bin", "--data-dir", data).returncode == 0
    os.kill(pid_of(shared.child, "redis"), signal.SIGKILL)
    shared.child.wait_for_output("redis started again")
    wait_until(lambda: "down" in run("list", "--data-dir", data).stdout)


def test_up_second_supervisor_of_directory_is_refused(shared: Shared) -> None:
    refused = run("up", "--data-dir", str(shared.data))
    assert refused.returncode == 1
    assert f"(pid {shared.child.pid})" in refused.stderr
    assert "clusterer node --server-id" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert shared.child.returncode is None


def test_up_in_persistent_mode_starts_database_worker(data: Path) -> None:
    with up(data, "--set", "persistent_mode=yes") as child:
        all_started(child, len(COMMON) + 1)
        assert "database started, pid" in child.output()


def test_up_external_redis_is_used(data: Path, redis_url: str) -> None:
    with up(data, "--redis-url", redis_url) as child:
        all_started(child, len(COMMON) - 1)
        listed = run("list", "--json", "--redis-url", redis_url)
        assert len(json.loads(listed.stdout)["clusters"][0]["nodes"]) == 2
    assert not (data / "redis.sock").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--redis-url", "redis://127.0.0.1:1", "--server-id", "1"],
            "Redis at redis://127.0.0.1:1",
        ),
        (["--db-url", "sqlite:////nothing/here.db"], "server_id is not set"),
        (["--db-url", "sqlite:////nothing/here.db", "--server-id", "1"], "/nothing/here.db"),
    ],
)
def test_up_start_failure_is_explained(data: Path, options: list[str], message: str) -> None:
    done = run("up", "--data-dir", str(data), *options)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("kind", ["delivery", "maintenance", "database"])
def test_worker_command_becomes_the_worker(redis_url: str, kind: str) -> None:
    with spawn(["-m", "clusterer", "worker", kind, "--redis-url", redis_url]) as child:
        child.wait_for_output(f"{kind} worker")
        command = Path(f"/proc/{child.pid}/cmdline").read_bytes().split(b"\0")
        assert command[-3:-1] == [b"workers", kind.encode()]
        assert child.terminate() == 0


def test_scheduler_command_becomes_the_scheduler(redis_url: str) -> None:
    with spawn(["-m", "clusterer", "scheduler", "--redis-url", redis_url]) as child:
        child.wait_for_output("scheduler: now active")
        assert child.terminate() == 0


def test_node_command_without_server_id_is_explained() -> None:
    done = run("node")
    assert done.returncode == 1
    assert "server_id is not set" in done.stderr


def test_node_command_with_option_replicates_ratelimit(shared: Shared) -> None:
    def heartbeats() -> bool:
        listed = run("list", "--json", "--traffic", "--data-dir", str(shared.data))
        traffic = json.loads(listed.stdout)["traffic"]
        return any(item["sender"] == 1 and item["machine_id"] == 2 for item in traffic)

    wait_until(heartbeats)
