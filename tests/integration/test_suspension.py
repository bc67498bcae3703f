"""``rq suspend``: workers, doctor, live views and metrics name it; its end is named as well."""

from __future__ import annotations

import contextlib
import re
import time
from functools import partial
from pathlib import Path

import pytest
import redis
from prometheus_client import CollectorRegistry
from rq.suspension import resume, suspend

from clusterer.cli import main
from clusterer.jobs import SUSPENDED, Suspension, enqueue_delivery, queued, resume_command
from clusterer.services import Context
from clusterer.services.doctor import Finding, Level, network
from clusterer.services.doctor import backlog as backlog_checks
from clusterer.services.doctor import fleet as fleet_checks
from clusterer.services.metrics import ClusterCollector
from clusterer.services.status import fleet as fleets
from clusterer.settings import DEFAULT_DELIVERY_QUEUE, MAINTENANCE_QUEUE, Settings, as_environment
from clusterer.store.packets import PacketLog
from tests.support.cluster import CLUSTER, load, node, node_for, numbers
from tests.support.frames import frame
from tests.support.processes import EVENTUALLY_S, LATE_S, spawn, wait_until
from tests.support.receiver import BinReceiver
from tests.support.seeding import make_node, put_node
from workers import Worker

QUEUE = DEFAULT_DELIVERY_QUEUE


def findings(context: Context) -> list[Finding]:
    fleet = fleets.read(context)
    return [*fleet_checks.check(context, fleet), *network.check_from_workers(context, fleet)]


def errors(context: Context) -> list[Finding]:
    found = findings(context)
    return [one for one in found if one.check == "workers" and one.level is Level.ERROR]


# ------------------------------------------------------------------------------ workers


def _beats(client: redis.Redis, name: bytes | str, before: bytes | str | None) -> bool:
    return client.hget(name, "last_heartbeat") != before


def test_worker_logs_suspension_and_its_end_once(redis_url: str, redis_client: redis.Redis) -> None:
    suspend(redis_client)
    with spawn(["-m", "workers", "maintenance"], {"CLUSTERER_REDIS_URL": redis_url}) as worker:
        worker.wait_for_output("RQ is suspended")
        (name,) = redis_client.smembers("rq:workers")
        for _ in range(3):  # several looks, one line
            beat = redis_client.hget(name, "last_heartbeat")
            wait_until(partial(_beats, redis_client, name, beat))
        assert f"run `rq resume --url {redis_url}`" in worker.output()
        resume(redis_client)
        worker.wait_for_output("RQ is resumed")
        suspend(redis_client, ttl=5)
        wait_until(lambda: re.search(r"RQ is suspended for [1-5] s more", worker.output()))
        wait_until(lambda: worker.output().count("RQ is resumed") == 2)
        said = [line for line in worker.output().splitlines() if "RQ is " in line]
    assert len(said) == 4
    assert all(" WARNING " in line for line in said)


def test_worker_suspended_makes_progress_and_ends(
    redis_url: str, redis_client: redis.Redis, tmp_path: Path
) -> None:
    suspend(redis_client)
    env = {"CLUSTERER_REDIS_URL": redis_url, "CLUSTERER_DATA_DIR": str(tmp_path)}
    with spawn(["-m", "workers", "maintenance"], env) as worker:
        worker.wait_for_output("RQ is suspended")
        (alive,) = (tmp_path / "run").glob("*.alive")
        before = alive.stat().st_mtime_ns
        wait_until(lambda: alive.stat().st_mtime_ns > before, message="health check goes on")
        enqueue_delivery(MAINTENANCE_QUEUE, redis_client)
        began = time.monotonic()
        worker.terminate()
        assert worker.wait(EVENTUALLY_S) == 0
        assert time.monotonic() - began < 3 + LATE_S
    assert queued(MAINTENANCE_QUEUE, redis_client) == 1


def test_worker_suspended_registers_again(redis_url: str, redis_client: redis.Redis) -> None:
    suspend(redis_client)
    with spawn(["-m", "workers", "maintenance"], {"CLUSTERER_REDIS_URL": redis_url}) as worker:
        worker.wait_for_output("RQ is suspended")
        (name,) = redis_client.smembers("rq:workers")
        redis_client.delete(name)
        wait_until(lambda: redis_client.hget(name, "birth"), message="registered again")
        wait_until(lambda: redis_client.hget(name, "state") == b"suspended")
        assert worker.output().count("RQ is suspended") == 1


def test_worker_burst_ends_while_suspended(redis_client: redis.Redis) -> None:
    enqueue_delivery(QUEUE, redis_client)
    suspend(redis_client)
    assert Worker(QUEUE, connection=redis_client).work(burst=True) is False
    assert queued(QUEUE, redis_client) == 1


def test_delivery_waits_while_suspended_and_goes_on(
    redis_url: str, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(redis_url=redis_url, linger=0.2)
    monkeypatch.setattr(backlog_checks, "BEHIND_S", 0.0)
    environment = as_environment(settings)
    with BinReceiver() as peer, spawn(["-m", "workers", "delivery"], environment) as worker:
        load(settings, [node(1), node_for(2, peer)])
        suspend(redis_client)
        worker.wait_for_output("RQ is suspended")
        for number in range(5):
            if PacketLog(settings, 1).append(CLUSTER, [frame(number)]):
                enqueue_delivery(QUEUE, redis_client)
        with contextlib.closing(Context(settings)) as context:
            (found,) = backlog_checks.check(context)
        assert found.advice == f"RQ is suspended: run `{resume_command(settings)}`"
        assert peer.frame_count == 0
        assert queued(QUEUE, redis_client) == 1
        resume(redis_client)
        peer.wait_for_frames(5)
        assert numbers(peer) == list(range(5))


# ------------------------------------------------------------------------------- doctor


def test_doctor_names_suspension_and_command(context: Context, redis_client: redis.Redis) -> None:
    assert errors(context) == []
    suspend(redis_client)
    (found,) = errors(context)
    assert found.text.startswith("RQ is suspended: ")
    assert found.advice == f"run `{resume_command(context.settings)}`"


def test_doctor_says_until_when_suspended(context: Context, redis_client: redis.Redis) -> None:
    suspend(redis_client, ttl=3600)
    (found,) = errors(context)
    assert found.text.startswith("RQ is suspended until 20")
    redis_client.pexpire(SUSPENDED, 2**62 // 10)
    (found,) = errors(context)
    assert found.text.startswith("RQ is suspended until 9999-12-31T")


@pytest.mark.parametrize("kind", ["list", "hash"])
def test_doctor_suspension_key_of_any_type(
    context: Context, redis_client: redis.Redis, kind: str
) -> None:
    """RQ asks only whether the key exists."""
    if kind == "list":
        redis_client.rpush(SUSPENDED, "x")
    else:
        redis_client.hset(SUSPENDED, "field", "x")
    assert len(errors(context)) == 1


def test_doctor_does_not_blame_suspended_workers(
    context: Context, redis_url: str, redis_client: redis.Redis
) -> None:
    with spawn(["-m", "workers", "maintenance"], {"CLUSTERER_REDIS_URL": redis_url}) as worker:
        worker.wait_for_output("takes jobs of")
        suspend(redis_client)
        wait_until(lambda: "RQ is suspended" in worker.output())
        for _ in range(fleet_checks.PILED_UP + 1):
            enqueue_delivery(MAINTENANCE_QUEUE, redis_client)
        began = time.monotonic()
        found = {one.check: one for one in findings(context)}
        assert time.monotonic() - began < network.ANSWER_S
    assert found["maintenance workers"].level is Level.OK
    assert found["nodes from workers"].level is Level.SKIPPED
    assert found["nodes from workers"].text == "RQ is suspended"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:p%40ss@sip1:6380/3", "'redis://:***@sip1:6380/3'"),
        ("redis://user:secret@sip1/0?socket_timeout=3", "'redis://***@sip1/0'"),
        ("unix:///run/redis.sock?db=2", "'unix:///run/redis.sock?db=2'"),
        ("redis://sip1:6379/0", "redis://sip1:6379/0"),
    ],
)
def test_resume_command_has_no_secret(url: str, shown: str) -> None:
    assert resume_command(Settings(redis_url=url)) == f"rq resume --url {shown}"


def test_resume_command_for_sentinels_names_a_file() -> None:
    settings = Settings(redis_url="sentinel://:secret@sip1/sip")
    assert resume_command(settings) == "rq resume --config rq_sentinel"


def test_suspension_follows_redis_pttl() -> None:
    assert Suspension.of(-2) is None
    assert Suspension.of(-1) == Suspension(None)
    assert Suspension.of(0) == Suspension(0.0)
    assert Suspension.of(1500) == Suspension(1.5)


# ------------------------------------------------------------------------------ metrics


def test_metrics_suspension_leaves_no_worker(
    context: Context, redis_url: str, redis_client: redis.Redis
) -> None:
    def value(name: str, **labels: str) -> float | None:
        registry = CollectorRegistry()
        registry.register(ClusterCollector(context))
        return registry.get_sample_value(name, labels)

    with spawn(["-m", "workers", "maintenance"], {"CLUSTERER_REDIS_URL": redis_url}) as worker:
        worker.wait_for_output("takes jobs of")
        taking = {"queue": MAINTENANCE_QUEUE}
        wait_until(lambda: value("clusterer_queue_workers", **taking) == 1)
        assert value("clusterer_rq_suspended") == 0
        suspend(redis_client)
        assert value("clusterer_queue_workers", **taking) == 0
        assert value("clusterer_rq_suspended") == 1


# --------------------------------------------------------------------------- live views


def test_live_views_name_the_suspension(
    redis_url: str, redis_client: redis.Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    put_node(redis_client, make_node(1))
    suspend(redis_client)
    assert main(["top", "--redis-url", redis_url, "--interval", "0.2"]) == 0
    assert "States are not updated: RQ is suspended" in capsys.readouterr().out


def test_watch_in_a_pipe_tells_of_suspension(redis_url: str, redis_client: redis.Redis) -> None:
    put_node(redis_client, make_node(1))
    suspend(redis_client)
    with spawn(["-m", "clusterer", "watch", "1"], {"CLUSTERER_REDIS_URL": redis_url}) as process:
        process.wait_for_output("States are not updated: RQ is suspended")
        resume(redis_client)
        process.wait_for_output("States are not updated: no scheduler runs")
