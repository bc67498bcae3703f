"""Commands, `clusterer up` and RQ's own command line on a Redis that sentinels watch."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from clusterer import Settings
from clusterer.provisioning.table import NewRow
from clusterer.services import Context, doctor
from clusterer.services.doctor.finding import Finding, Level
from clusterer.services.table import init_db
from tests.support import docs
from tests.support.cluster import load, node
from tests.support.failover import connected_to
from tests.support.pids import descendants
from tests.support.ports import free_port
from tests.support.processes import child_environment, spawn, wait_until
from tests.support.sentinel import PATIENT_S, SERVICE, SentinelRedis

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def watched() -> Iterator[SentinelRedis]:
    with SentinelRedis() as found:
        yield found


def finding(settings: Settings, check: str) -> Finding:
    with closing(Context(settings)) as context:
        return next(each for each in doctor.run(context) if each.check == check)


def test_doctor_on_sentinels_names_them(watched: SentinelRedis) -> None:
    settings = Settings(redis_url=watched.url)
    load(settings, [node(1)])
    found = finding(settings, "redis")
    assert found.level is Level.OK, found
    assert f" at {watched.url} answers in " in found.text


@pytest.mark.parametrize(("wanted", "level"), [(2, Level.OK), (3, Level.ERROR)])
def test_doctor_compares_wait_replicas(watched: SentinelRedis, wanted: int, level: Level) -> None:
    watched.make_whole()
    settings = Settings(redis_url=watched.url, wait_replicas=wanted)
    found = finding(settings, "redis replicas")
    assert found.level is level
    assert found.text.startswith(f"2 online, wait_replicas is {wanted}")


def rq_file(watched: SentinelRedis, directory: Path) -> str:
    """Write the file of the deployment page for these sentinels; return its module's name."""
    blocks = docs.blocks(docs.read("deployment.md"), "python")
    block = next(block for block in blocks if "SENTINEL = {" in block)
    members = ", ".join(f'("{each.address}", {each.port})' for each in watched.sentinels)
    lines = block.splitlines()
    at = next(i for i, line in enumerate(lines) if "INSTANCES" in line)
    lines[at] = f'    "INSTANCES": [{members}],'
    text = "\n".join(line for line in lines if "USERNAME" not in line and '"PASSWORD"' not in line)
    assert f'"MASTER_NAME": "{SERVICE}"' in text
    directory.joinpath("rq_sentinel.py").write_text(text, encoding="utf-8")
    return "rq_sentinel"


def without_values(text: str) -> list[str]:
    """Return the lines of RQ's output without names, places and numbers."""
    text = re.sub(r"[0-9a-f]{32} \(.*?\): (idle|busy)", "WORKER", text)
    text = re.sub(r"Updated: .*", "Updated", text)
    lines = [re.sub(r"\d+", "N", line) for line in text.splitlines() if line.strip()]
    return sorted(lines)


def test_rq_info_takes_the_file_of_the_docs(watched: SentinelRedis, tmp_path: Path) -> None:
    module = rq_file(watched, tmp_path)
    environment = {"CLUSTERER_REDIS_URL": watched.url}
    sessions = docs.blocks(docs.read("deployment.md"), "console")
    (page,) = (block for block in sessions if block.startswith("$ rq info --config rq_sentinel"))
    expected = without_values(page.partition("\n")[2])
    with (
        spawn(["-m", "workers", "maintenance"], environment),
        spawn(["-m", "workers", "delivery"], environment),
    ):

        def shown() -> bool:
            done = subprocess.run(
                [sys.executable, "-m", "rq.cli", "info", "--config", module, "--path", tmp_path],
                env=child_environment(),
                capture_output=True,
                text=True,
                timeout=PATIENT_S,
                check=False,
            )
            return without_values(done.stdout) == expected

        wait_until(shown, PATIENT_S, "rq info shows what the page shows")


def test_rq_worker_of_rq_follows_the_master(watched: SentinelRedis, tmp_path: Path) -> None:
    module = rq_file(watched, tmp_path)
    words = ["-m", "rq.cli", "worker", "-w", "workers.Worker", "--job-class", "clusterer.jobs.Job"]
    words += ["--queue-class", "clusterer.jobs.Queue", "--serializer", "json"]
    words += ["--config", module, "--path", str(tmp_path), "clusterer-delivery"]
    with spawn(words, {"CLUSTERER_REDIS_URL": watched.url}) as worker:

        def follows() -> bool:
            assert worker.returncode is None, worker.output()
            return connected_to(worker.pid, watched.port) == {watched.master().address}

        wait_until(follows, PATIENT_S, "connected")
        watched.wait_for_promotion(watched.fail_over())
        wait_until(follows, PATIENT_S, "has followed")
    watched.make_whole()


def test_up_on_sentinels_follows_the_master(watched: SentinelRedis, tmp_path: Path) -> None:
    with closing(Context(Settings(data_dir=str(tmp_path)))) as context:
        init_db.run(context)
        init_db.add(context, [NewRow(1, 1, f"bin:127.0.0.1:{free_port()}")])
    words = ["-m", "clusterer", "up", "--data-dir", str(tmp_path), "--redis-url", watched.url]
    with spawn(words) as up:

        def all_follow() -> bool:
            assert up.returncode is None, up.output()
            found = [connected_to(pid, watched.port) for pid in descendants(up.pid)]
            return all(found) and set().union(*found) == {watched.master().address}

        wait_until(lambda: len(descendants(up.pid)) >= 4 and all_follow(), PATIENT_S, "connected")
        assert not Path(tmp_path, "redis.sock").exists(), "no Redis of its own"
        before = set(descendants(up.pid))
        watched.wait_for_promotion(watched.fail_over())
        wait_until(all_follow, PATIENT_S, "have followed")
        assert set(descendants(up.pid)) == before, "no process has ended"
        assert up.terminate(PATIENT_S) == 0
    watched.make_whole()
