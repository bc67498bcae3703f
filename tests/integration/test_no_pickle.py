"""Nothing is unpickled and no foreign function runs, whatever lies in Redis."""

from __future__ import annotations

import json
import os
import pickle
import signal
import sys
import time
import types
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from click.testing import CliRunner
from rq.cli.cli import main as rq_cli
from rq.executions import Execution
from rq.group import Group
from rq.job import Job as PlainJob
from rq.queue import Queue as PlainQueue
from rq.serializers import DefaultSerializer, JSONSerializer

from clusterer.jobs import Job, JunkStore, Queue, enqueue_delivery, queue, queued
from clusterer.settings import MAINTENANCE_QUEUE, Settings
from scheduler import Scheduler, periodic_jobs
from workers import Worker, runtime

OPTIONS = ["-w", "workers.Worker", "-j", "clusterer.jobs.Job", "-S", "json"]
OPTIONS += ["--queue-class", "clusterer.jobs.Queue"]
NAME = "deliveries"


class Engine:
    """A delivery engine with nothing to do."""

    def __init__(self, *args: Any) -> None: ...
    def run(self, **kwargs: Any) -> None: ...
    def close(self) -> None: ...


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stubbed services, a fresh runtime; signal handlers as before afterwards."""
    services: Any = types.ModuleType("clusterer.services")
    services.Context = Engine
    periodic: Any = types.ModuleType("clusterer.services.periodic")
    for name in ("probe", "timeouts", "sweep", "sync"):
        setattr(periodic, name, types.SimpleNamespace(run=lambda context: None))
    delivery: Any = types.ModuleType("clusterer.delivery")
    delivery.Engine = Engine
    monkeypatch.setitem(sys.modules, "clusterer.services", services)
    monkeypatch.setitem(sys.modules, "clusterer.services.periodic", periodic)
    monkeypatch.setitem(sys.modules, "clusterer.delivery", delivery)
    before = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
    runtime.start(Settings())
    yield
    runtime._Slot.runtime = None
    for number, handler in before:
        signal.signal(number, handler)


@pytest.fixture
def unpickled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Data that was unpickled: each attempt is recorded and fails. RQ hides some such errors."""
    attempts: list[str] = []

    def refuse(*args: Any, **kwargs: Any) -> Any:
        attempts.append("".join(map(repr, args))[:80])
        raise AssertionError("unpickled")

    for name in ("loads", "load", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(DefaultSerializer, "loads", refuse)
    return attempts


def bomb(path: Path) -> bytes:
    """A pickle that makes the directory ``path`` when it is loaded."""

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(path),)

    return pickle.dumps(Bomb())


def plant(client: redis.Redis, job_id: str, payload: bytes, **fields: str) -> None:
    """Put a job's hash into Redis that is a bomb in every field that RQ may deserialize."""
    mapping = {
        "data": zlib.compress(payload),
        "meta": payload,
        "result": payload,
        "origin": NAME,
        "status": "queued",
        "created_at": "2026-01-01T00:00:00.000000Z",
        "timeout": "10",
        **fields,
    }
    client.hset(f"rq:job:{job_id}", mapping=mapping)  # type: ignore[arg-type]


def plant_everywhere(client: redis.Redis, payload: bytes) -> None:
    """A bomb in the queue, in every registry, in the schedule, in a group and as a dependent."""
    past = time.time() - 1000
    for name in ("queued", "failed", "finished", "deferred", "ready", "scheduled", "canceled"):
        status = "ready_to_enqueue" if name == "ready" else name
        depends_on = json.dumps(["bomb-started"])
        plant(client, f"bomb-{name}", payload, status=status, dependency_ids=depends_on)
        client.sadd("rq:group:bombs", f"bomb-{name}")
        if name != "queued":
            client.zadd(f"rq:{name}:{NAME}", {f"bomb-{name}": past + 1e6})
    plant(client, "bomb-started", payload, status="started")
    client.zadd(f"rq:wip:{NAME}", {"bomb-started:execution": past})
    client.sadd("rq:job:bomb-started:dependents", "bomb-deferred")
    client.sadd("rq:groups", "bombs")
    client.sadd("rq:queues", f"rq:queue:{NAME}")
    client.rpush(f"rq:queue:{NAME}", "bomb-queued")
    client.rpush(f"rq:queue:{NAME}:intermediate", "bomb-finished")
    client.zadd("rq:scheduler:scheduled_jobs", {"bomb-queued": past, "clusterer-probe": past})
    plant(client, "clusterer-probe", payload)


def walk_everything(client: redis.Redis) -> None:
    """Read a job in every way of this project and of RQ."""
    enqueue_delivery(NAME, client)
    assert queued(NAME, client)
    for found in Queue.all(client):
        found.get_jobs()
        for registry in (
            found.started_job_registry,
            found.failed_job_registry,
            found.finished_job_registry,
            found.deferred_job_registry,
            found.scheduled_job_registry,
            found.canceled_job_registry,
        ):
            for job_id in registry.get_job_ids(cleanup=False):
                Job.fetch(job_id, connection=client)
    scheduler = Scheduler(client, periodic_jobs(persistent_mode=True))
    list(scheduler.get_jobs())
    scheduler.run(burst=True)
    assert queued(MAINTENANCE_QUEUE, client) == 3
    for name in (NAME, MAINTENANCE_QUEUE):
        assert Worker(name, connection=client).work(burst=True)
    Worker.all(connection=client)
    for job_id in queue(NAME, client).failed_job_registry.get_job_ids():
        queue(NAME, client).failed_job_registry.requeue(job_id)


def test_jobs_from_any_source_are_never_unpickled(
    redis_client: redis.Redis, unpickled: list[str], tmp_path: Path
) -> None:
    plant_everywhere(redis_client, bomb(tmp_path / "exploded"))
    walk_everything(redis_client)
    assert not unpickled
    assert not (tmp_path / "exploded").exists()


def test_rq_commands_with_our_classes_unpickle_nothing(
    redis_client: redis.Redis, redis_url: str, unpickled: list[str], tmp_path: Path
) -> None:
    plant_everywhere(redis_client, bomb(tmp_path / "exploded"))
    run = CliRunner().invoke
    for words in (["info"], ["info", "--by-queue"], ["requeue", "--all", "--queue", NAME]):
        result = run(rq_cli, [*words, *OPTIONS, "-u", redis_url], catch_exceptions=False)
        assert result.exit_code == 0, result.output
    result = run(rq_cli, ["worker", "--burst", *OPTIONS, "-u", redis_url, NAME])
    assert result.exit_code == 0, result.output
    assert not unpickled
    assert not (tmp_path / "exploded").exists()


def test_pickle_trap_unpickled_runs(
    redis_client: redis.Redis, unpickled: list[str], tmp_path: Path
) -> None:
    """RQ's own classes unpickle the planted data, so the two tests above would fail with them."""
    plant(redis_client, "bomb", bomb(tmp_path / "exploded"))
    PlainJob.fetch("bomb", connection=redis_client)
    assert unpickled


def test_rq_info_without_our_classes_unpickles_nothing(
    redis_client: redis.Redis, redis_url: str, unpickled: list[str]
) -> None:
    enqueue_delivery(NAME, redis_client)
    Scheduler(redis_client, periodic_jobs(persistent_mode=True)).run(burst=True)
    result = CliRunner().invoke(rq_cli, ["info", "-u", redis_url], catch_exceptions=False)
    assert result.exit_code == 0
    for name in (NAME, "clusterer-maintenance", "clusterer-database"):
        assert name in result.output
    assert not unpickled


def test_foreign_function_is_listed_as_junk_and_not_run(
    redis_client: redis.Redis, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    target = tmp_path / "made"
    evil = PlainQueue(NAME, connection=redis_client, serializer=JSONSerializer)
    job = evil.enqueue("os.mkdir", str(target), on_success=None)
    enqueue_delivery(NAME, redis_client)
    Worker(NAME, connection=redis_client).work(burst=True)
    assert not target.exists()
    ours = queue(NAME, redis_client)
    assert ours.failed_job_registry.count == 0
    assert ours.finished_job_registry.count == 1
    report = JunkStore(NAME, redis_client).report()
    assert report is not None
    assert (report.count, report.example) == (
        1,
        f"'{job.id}' its function 'os.mkdir' is no function of clusterer",
    )
    assert report.example in caplog.text


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda client, key: client.hset(key, "timeout", "soon"), id="bad timeout"),
        pytest.param(lambda client, key: client.hset(key, "data", b"\xff"), id="not JSON"),
        pytest.param(lambda client, key: client.hset(key, "status", "odd"), id="bad status"),
        pytest.param(lambda client, key: client.hset(key, "description", b"\xff"), id="bad text"),
        pytest.param(lambda client, key: client.hset(key, "retries_left", "9"), id="retries"),
        pytest.param(lambda client, key: client.hset(key, "data", json.dumps([1])), id="1-tuple"),
        pytest.param(
            lambda client, key: (client.delete(key), client.rpush(key, "x")), id="not a hash"
        ),
    ],
)
def test_spoilt_job_does_not_end_the_worker(
    redis_client: redis.Redis, spoil: Callable[[redis.Redis, str], object]
) -> None:
    evil = PlainQueue(NAME, connection=redis_client, serializer=JSONSerializer)
    spoil(redis_client, evil.enqueue("workers.probe").key)
    enqueue_delivery(NAME, redis_client)
    Worker(NAME, connection=redis_client).work(burst=True)
    assert queued(NAME, redis_client) == 0
    assert queue(NAME, redis_client).finished_job_registry.count >= 1


def test_job_that_died_with_its_worker_is_cleaned_up_safely(
    redis_client: redis.Redis, unpickled: list[str]
) -> None:
    enqueue_delivery(NAME, redis_client)
    ours = queue(NAME, redis_client)
    job = ours.load(ours.pop(None) or "")
    assert job is not None
    with redis_client.pipeline() as pipe:
        execution = Execution.create(job, ttl=100, pipeline=pipe)
        job.prepare_for_execution("killed", pipeline=pipe)
        pipe.zadd(f"rq:wip:{NAME}", {execution.composite_key: time.time() - 1})
        pipe.execute()
    Worker(NAME, connection=redis_client).run_maintenance_tasks()  # type: ignore[no-untyped-call]
    assert ours.failed_job_registry.get_job_ids() == [job.id]
    assert not unpickled


def test_registry_that_rq_stumbles_over_does_not_stop_the_worker(
    redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    redis_client.set(f"rq:wip:{NAME}", "no registry")
    worker = Worker(NAME, connection=redis_client)
    worker._clean_up()
    assert "could not clean its registries: WRONGTYPE" in caplog.text
    assert not worker.should_run_maintenance_tasks


def test_groups_are_cleaned_without_reading_jobs(
    redis_client: redis.Redis, unpickled: list[str], tmp_path: Path
) -> None:
    plant(redis_client, "bomb", bomb(tmp_path / "exploded"))
    redis_client.sadd("rq:group:g", "bomb", "gone")
    redis_client.sadd("rq:groups", "g")
    Worker(NAME, connection=redis_client).clean_group_registries()
    assert [group.name for group in Group.all(redis_client)] == ["g"]
    assert not unpickled
