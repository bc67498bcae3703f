"""The health check against real processes that run, freeze, are killed, or wait for Redis."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from pathlib import Path

import pytest

from clusterer.cli import main
from clusterer.processes import progress
from clusterer.processes.progress import Progress, living
from clusterer.settings import Settings, as_environment
from tests.support import docs
from tests.support.ports import free_port
from tests.support.processes import LATE_S, spawn, wait_until
from tests.support.transcripts import plain, sessions

PROGRAMS = {
    "node": ("-m", "clusterer", "node", "--server-id", "1"),
    "worker": ("-m", "workers", "maintenance"),
    "scheduler": ("-m", "scheduler"),
}
NAMES = {"node": "node-1", "worker": "worker-maintenance", "scheduler": "scheduler"}

Capture = pytest.CaptureFixture[str]


SETTINGS = {"server_id": 1}


pytestmark = pytest.mark.usefixtures("in_environment")


@pytest.mark.parametrize("kind", PROGRAMS)
def test_ping_tells_running_frozen_and_killed_processes(
    kind: str, settings: Settings, capsys: Capture
) -> None:
    with spawn(PROGRAMS[kind], as_environment(settings)) as child:
        wait_until(lambda: living(settings, kind))
        assert main(["ping", kind]) == 0
        assert f"{NAMES[kind]} (pid {child.pid}): last progress" in capsys.readouterr().out
        child.signal(signal.SIGSTOP)
        wait_until(lambda: main(["ping", kind, "--within", "2"]) == 1)
        assert "restart the stuck processes" in capsys.readouterr().err
        child.signal(signal.SIGCONT)
        wait_until(lambda: main(["ping", kind, "--within", "2"]) == 0)
        child.kill()
        wait_until(lambda: main(["ping", kind]) == 1)
        said = capsys.readouterr().err
        assert f"no {kind} process runs with data_dir {settings.data_dir}" in said
    assert not list(settings.data_path.glob("run/*")), "a file of a dead process is left"


def test_ping_prints_what_its_page_shows(settings: Settings, capsys: Capture) -> None:
    names = {settings.data_dir: "/var/lib/clusterer"}
    delivery = ("-m", "workers", "delivery")
    environment = as_environment(settings)
    with spawn(PROGRAMS["node"], environment), spawn(delivery, environment) as worker:
        wait_until(lambda: len(living(settings)) == 2)
        for words, on_page in sessions(docs.command_section("ping")):
            if "worker" in words:
                worker.signal(signal.SIGSTOP)
                wait_until(lambda: living(settings, "worker")[0].age_s > 3)
            main(words[1:])
            said = capsys.readouterr()
            assert plain(said.out + said.err, names) == plain(on_page), words
        worker.signal(signal.SIGCONT)


@pytest.mark.parametrize("kind", PROGRAMS)
def test_ping_finds_a_process_that_waits_for_redis_well(kind: str, tmp_path: Path) -> None:
    settings = Settings(
        redis_url=f"redis://127.0.0.1:{free_port()}", data_dir=str(tmp_path), server_id=1
    )
    with spawn(PROGRAMS[kind], as_environment(settings)):
        (first,) = wait_until(lambda: living(settings))
        ages: list[float] = []
        while len(ages) < 40:
            ages += [alive.age_s for alive in living(settings) if alive.pid == first.pid]
            time.sleep(0.1)
        assert max(ages) < 3 + LATE_S


def test_progress_looked_at_before_its_lock_is_seen(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The health check removes the file, as that of a process that ended."""
    locked, looks = progress.locked, [0]

    def looked_at(descriptor: int, how: int) -> bool:
        if how == fcntl.LOCK_EX and not looks[0]:
            looks[0] += 1
            assert living(settings) == []
        return locked(descriptor, how)

    monkeypatch.setattr(progress, "locked", looked_at)
    with Progress(settings, "scheduler"):
        assert [alive.pid for alive in living(settings)] == [os.getpid()]
    assert looks == [1]


def test_process_without_a_directory_warns_and_runs(redis_url: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    settings = Settings(redis_url=redis_url, data_dir=str(tmp_path / "file" / "data"))
    with spawn(PROGRAMS["scheduler"], as_environment(settings)) as child:
        child.wait_for_output("health check unavailable")
        child.wait_for_output("scheduler: now active")
        child.signal(signal.SIGTERM)
        assert child.wait() == 0


def test_progress_of_one_pid_in_two_containers_is_told_apart(settings: Settings) -> None:
    with Progress(settings, "worker-delivery"), Progress(settings, "worker-delivery") as second:
        assert [alive.pid for alive in living(settings, "worker")] == [os.getpid()] * 2
        second.close()
        assert len(living(settings)) == 1
        assert living(settings, "node") == []
    assert living(settings) == []


def test_list_of_foreign_files_is_no_error(settings: Settings) -> None:
    with Progress(settings, "scheduler"):
        for name in ("x.alive", "a.b.alive", "node-1.7.0.alive"):
            (settings.data_path / "run" / name).write_text("x")
        assert [alive.kind for alive in living(settings)] == ["scheduler"]
