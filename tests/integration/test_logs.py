"""Log lines of real processes, in both forms."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis

from clusterer.membership import State
from clusterer.services import Context
from clusterer.services.admin import set_status
from clusterer.settings import Settings, as_environment
from tests.support.ports import free_port
from tests.support.processes import EVENTUALLY_S, ChildProcess, child_environment, spawn, wait_until
from tests.support.seeding import make_node, put_node


@pytest.fixture
def environment(redis_client: redis.Redis, redis_url: str) -> dict[str, str]:
    return as_environment(Settings(redis_url=redis_url, log_format="json", server_id=1))


def lines(child: ChildProcess) -> list[dict[str, Any]]:
    return [json.loads(line) for line in child.output().splitlines()]


def test_logs_json_by_environment_applies_to_every_process(
    environment: dict[str, str], redis_client: redis.Redis
) -> None:
    put_node(redis_client, make_node(1, port=free_port()))
    with (
        spawn(["-m", "clusterer", "node"], environment) as node,
        spawn(["-m", "clusterer", "worker", "maintenance"], environment) as worker,
        spawn(["-m", "clusterer", "scheduler"], environment) as scheduler,
    ):
        node.wait_for_output("listening on")
        worker.wait_for_output("takes jobs of")
        scheduler.wait_for_output("scheduler: now active")
        names = [lines(child)[0]["process"] for child in (node, worker, scheduler)]
        assert names == ["node", "worker maintenance", "scheduler"]


def test_logs_of_node_have_cluster_machine_id_and_url(
    environment: dict[str, str], redis_client: redis.Redis
) -> None:
    node = put_node(redis_client, make_node(2, state=State.PROBING, port=free_port()))
    redis_client.zadd("clusterer:1:bin:due", {"2": 0})
    with (
        spawn(["-m", "workers", "maintenance"], environment) as worker,
        spawn(["-m", "scheduler"], environment),
    ):
        worker.wait_for_output("probe failed")
        line = next(line for line in lines(worker) if "probe failed" in line["message"])
    assert (line["cluster"], line["protocol"], line["machine_id"]) == (1, "bin", 2)
    assert (line["url"], line["before"], line["after"]) == (node.url, "probing", "probing")
    assert line["level"] == "warning", "a node that fails is more than a piece of news"


@pytest.mark.parametrize(
    ("code", "level", "message"),
    [
        ("raise ValueError(7)", "critical", "crashed: ValueError: 7"),
        ("Thread(target=int, args='x', name='t').start()", "critical", "thread t crashed: "),
        ("warnings.warn('old')", "warning", "UserWarning: old"),
    ],
)
def test_logs_of_crash_and_warning_are_json(code: str, level: str, message: str) -> None:
    imports = (
        "import warnings; from threading import Thread; from clusterer.runtime import logs; "
        "from clusterer.settings import Settings; "
    )
    program = f"{imports}logs.configure(Settings(log_format='json'), 'node'); {code}"
    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=EVENTUALLY_S,
        check=False,
    )
    (line,) = (json.loads(text) for text in result.stderr.splitlines())
    assert (line["level"], line["process"]) == (level, "node")
    assert message in line["message"]
    assert ("exception" in line) == (level == "critical")


def test_quiet_and_verbose_reach_workers_and_scheduler(environment: dict[str, str]) -> None:
    with spawn(["-m", "clusterer", "scheduler", "-q"], environment) as quiet:
        with spawn(["-m", "clusterer", "worker", "maintenance", "-v"], environment) as verbose:
            wait_until(lambda: '"debug"' in verbose.output())
        with redis.Redis.from_url(environment["CLUSTERER_REDIS_URL"]) as client:
            wait_until(lambda: client.keys("clusterer:scheduler*"), message="the quiet one works")
        assert quiet.terminate() == 0
        assert quiet.output() == ""


def test_up_prints_nothing_but_json_lines(tmp_path: Path) -> None:
    arguments = ["up", "--data-dir", str(tmp_path), "--log-format", "json"]
    with spawn(["-m", "clusterer", *arguments]) as up:
        for text in ("scheduler: now active", '"process": "node"', "takes jobs of"):
            up.wait_for_output(text)
        assert up.terminate() == 0
        processes = {line["process"] for line in lines(up)}
    assert {"up", "node", "scheduler", "worker delivery"} <= processes


def test_logs_json_by_option_applies(environment: dict[str, str]) -> None:
    del environment["CLUSTERER_LOG_FORMAT"]
    context = Context(Settings(redis_url=environment["CLUSTERER_REDIS_URL"]))
    put_node(context.redis, make_node(2))
    set_status.run(context, 1, 2, 0, "bin", by="test")
    context.close()
    words = ["set-status", "1", "2", "1", "bin", "-v", "--log-format", "json"]
    result = subprocess.run(
        [sys.executable, "-m", "clusterer", *words],
        capture_output=True,
        text=True,
        timeout=EVENTUALLY_S,
        env=child_environment(environment),
        check=False,
    )
    assert result.returncode == 0
    (line,) = (json.loads(text) for text in result.stderr.splitlines() if "down -> up" in text)
    assert (line["process"], line["machine_id"]) == ("set-status", 2)


@pytest.mark.parametrize(
    "words",
    [["-m", "clusterer", "list"], ["-m", "workers", "maintenance", "--burst"]],
    ids=" ".join,
)
def test_processes_in_kubernetes_warn_once_in_log_form(
    words: list[str], environment: dict[str, str]
) -> None:
    """A service named clusterer-metrics: each command starts."""
    links = {"CLUSTERER_METRICS_PORT": "tcp://10.96.0.7:9400", "CLUSTERER_PORT": "tcp://10.0.0.1:1"}
    done = subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        timeout=EVENTUALLY_S,
        env=child_environment(environment | links),
        check=False,
    )
    assert done.returncode == 0
    told = [json.loads(line)["message"] for line in done.stderr.splitlines()]
    assert [line.count("CLUSTERER_METRICS_PORT") for line in told if "ignored" in line] == [1]
