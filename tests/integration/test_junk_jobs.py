"""Junk in RQ's keys costs a worker next to nothing, ends nothing, and is told of."""

from __future__ import annotations

import logging
import signal
import sys
import time
import types
from collections.abc import Iterator
from typing import Any, cast

import pytest
import redis
from rq.queue import Queue as PlainQueue

from clusterer.jobs import JunkStore, enqueue_delivery, keys, queue, queued
from clusterer.jobs.junk import KEPT_S, MOST_ENTRIES
from clusterer.services.periodic import reach
from clusterer.settings import MAINTENANCE_QUEUE, Settings
from scheduler import Scheduler, periodic_jobs
from tests.support import junk
from tests.support.processes import LATE_S, rounds, spawn, wait_until
from workers import Worker, runtime

NAME = "deliveries"
MANY = 300
"""At 0.5 s each, as once, they would cost minutes."""
SOON_S = 3.0 + LATE_S


class Engine:
    """A delivery engine with nothing to do."""

    def __init__(self, *args: Any) -> None: ...
    def run(self, **kwargs: Any) -> None: ...
    def close(self) -> None: ...


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A worker's runtime in this process, with an engine that does nothing."""
    delivery: Any = types.ModuleType("clusterer.delivery")
    delivery.Engine = Engine
    monkeypatch.setitem(sys.modules, "clusterer.delivery", delivery)
    monkeypatch.setattr(reach, "run", lambda context: {})
    before = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
    runtime.start(Settings())
    yield
    runtime._Slot.runtime = None
    for number, handler in before:
        signal.signal(number, handler)


def run_all(client: redis.Redis) -> float:
    """Run jobs until the queue is empty; return the seconds it took."""
    began = time.monotonic()
    Worker(NAME, connection=client).work(burst=True)
    return time.monotonic() - began


def report(client: redis.Redis, name: str = NAME) -> tuple[int, str]:
    found = JunkStore(name, client).report()
    return (found.count, found.example) if found else (0, "")


@pytest.mark.usefixtures("process")
@pytest.mark.parametrize("kind", junk.KINDS)
def test_junk_of_any_kind_is_moved_and_counted(
    redis_client: redis.Redis, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    junk.plant(redis_client, NAME, kind, MANY)
    enqueue_delivery(NAME, redis_client)
    assert run_all(redis_client) < SOON_S
    ours = queue(NAME, redis_client)
    assert queued(NAME, redis_client) == 0
    assert ours.intermediate_queue.get_job_ids() == []
    assert ours.finished_job_registry.count == 1 + (kind == "same good job")
    assert ours.failed_job_registry.count == 0
    count, example = report(redis_client)
    assert count == MANY
    assert example in caplog.text
    assert [record.exc_info for record in caplog.records if record.exc_info] == []
    assert sum(record.levelno >= logging.WARNING for record in caplog.records) <= 2


@pytest.mark.serial
@pytest.mark.parametrize("kind", ["pickled", "id not UTF-8", "wrong type"])
def test_probing_goes_on_behind_ten_thousand(
    redis_url: str, redis_client: redis.Redis, kind: str
) -> None:
    junk.plant(redis_client, MAINTENANCE_QUEUE, kind, 10_000)
    env = {"CLUSTERER_REDIS_URL": redis_url}
    with spawn(["-m", "workers", "maintenance"], env) as worker:
        worker.wait_for_output("takes jobs of")
        Scheduler(redis_client, periodic_jobs(persistent_mode=False)).run(burst=True)
        finished = queue(MAINTENANCE_QUEUE, redis_client).finished_job_registry
        wait_until(lambda: len(finished.get_job_ids()) == 3, SOON_S, "the periodic jobs ran")
        wait_until(lambda: report(redis_client, MAINTENANCE_QUEUE)[0] == 10_000)
        wait_until(lambda: queued(MAINTENANCE_QUEUE, redis_client) == 0)
        worker.wait_for_output("junk jobs moved to")
        assert "Traceback" not in worker.output()
        assert worker.output().count("junk jobs moved to") == 1


@pytest.mark.serial
def test_probing_goes_on_among_ten_thousand_probes(
    redis_url: str, redis_client: redis.Redis
) -> None:
    """One run does the work of all: the others are junk, but not the scheduler's own."""
    plant_valid(redis_client, MAINTENANCE_QUEUE, "workers.probe", 10_000)
    env = {"CLUSTERER_REDIS_URL": redis_url}
    ours = queue(MAINTENANCE_QUEUE, redis_client)
    with (
        spawn(["-m", "workers", "maintenance"], env) as worker,
        spawn(["-m", "scheduler"], env),
    ):
        periodic = {job.job_id for job in periodic_jobs(persistent_mode=False)}
        wait_until(lambda: periodic <= {*ours.finished_job_registry.get_job_ids()}, SOON_S * 2)
        wait_until(lambda: queued(MAINTENANCE_QUEUE, redis_client) <= 3, message="all are merged")
        worker.wait_for_output("junk jobs moved to")
    assert ours.finished_job_registry.count < 300
    count, example = report(redis_client, MAINTENANCE_QUEUE)
    assert count > 9_700
    assert example.endswith("it repeats workers.probe")


@pytest.mark.usefixtures("process")
@pytest.mark.parametrize("function", ["workers.deliver", "workers.reach"])
def test_repeats_of_valid_jobs_are_merged(redis_client: redis.Redis, function: str) -> None:
    plant_valid(redis_client, NAME, function, MANY)
    enqueue_delivery(NAME, redis_client)
    assert run_all(redis_client) < SOON_S
    ran = queue(NAME, redis_client).finished_job_registry.count
    assert ran == (2 if function == "workers.deliver" else 11)
    assert report(redis_client)[0] == MANY + 1 - ran


@pytest.mark.parametrize(("times", "taken"), [(2, 2), (5, 1)])
def test_periodic_job_enqueued_meanwhile_is_no_junk(
    redis_client: redis.Redis, times: int, taken: int
) -> None:
    Scheduler(redis_client, periodic_jobs(persistent_mode=False)).run(burst=True)
    ours = queue(MAINTENANCE_QUEUE, redis_client)
    redis_client.delete(ours.key)
    redis_client.rpush(ours.key, *["clusterer-probe"] * times)
    found = [ours.load(job_id) for job_id in iter(lambda: ours.pop(None), None)]
    assert sum(job is not None for job in found) == taken
    assert report(redis_client, MAINTENANCE_QUEUE)[0] == times - taken


@pytest.mark.usefixtures("process")
def test_few_valid_jobs_all_run(redis_client: redis.Redis) -> None:
    plant_valid(redis_client, NAME, "workers.reach", 10)
    run_all(redis_client)
    assert queue(NAME, redis_client).finished_job_registry.count == 10
    assert report(redis_client) == (0, "")


def plant_valid(client: redis.Redis, name: str, function: str, count: int) -> None:
    """Put jobs as our processes make them, each with an id of its own, at the end of the queue."""
    arguments = (name,) if function == "workers.deliver" else ()
    pipe = client.pipeline(transaction=False)
    for number in range(count):
        fields = {**junk.GOOD, "origin": name, "data": junk.call(function, *arguments)}
        pipe.hset(f"rq:job:valid-{number}", mapping=fields)
        pipe.rpush(f"rq:queue:{name}", f"valid-{number}")
    pipe.execute()


def test_steady_junk_does_not_delay_periodic_jobs(
    redis_url: str, redis_client: redis.Redis
) -> None:
    env = {"CLUSTERER_REDIS_URL": redis_url}
    finished = queue(MAINTENANCE_QUEUE, redis_client).finished_job_registry
    with (
        spawn(["-m", "workers", "maintenance"], env) as worker,
        spawn(["-m", "scheduler"], env) as scheduler,
    ):
        worker.wait_for_output("takes jobs of")
        scheduler.wait_for_output("scheduler: now active")
        ended = set()
        for _ in rounds(5, 0.1):
            junk.plant(redis_client, MAINTENANCE_QUEUE, "other function", 10)
            ended.add(redis_client.hget("rq:job:clusterer-probe", "ended_at"))
        assert len(ended - {b"", None}) >= 4
        assert worker.output().count("junk jobs moved to") == 1
    assert finished.count == 4  # one for each periodic job


@pytest.mark.usefixtures("process")
def test_junk_list_is_bounded_and_expires(redis_client: redis.Redis) -> None:
    junk.plant(redis_client, NAME, "other function", MOST_ENTRIES + 250)
    run_all(redis_client)
    assert redis_client.llen(keys.junk(NAME)) == MOST_ENTRIES
    assert 0 < redis_client.ttl(keys.junk(NAME)) <= KEPT_S
    kept = list(redis_client.scan_iter("rq:job:junk-*", count=1000))
    assert len(kept) == MOST_ENTRIES, "what fell off the list is deleted"
    assert all(0 < redis_client.ttl(key) <= KEPT_S for key in kept)


@pytest.mark.usefixtures("process")
def test_junk_job_of_other_application_keeps_its_hash(redis_client: redis.Redis) -> None:
    job = PlainQueue("reports", connection=redis_client).enqueue("time.sleep", 0)
    redis_client.rpush(f"rq:queue:{NAME}", job.id, "x:dependents")
    redis_client.sadd("rq:job:x:dependents", "y")
    run_all(redis_client)
    assert report(redis_client)[0] == 2
    assert redis_client.ttl(job.key) == -1
    assert redis_client.ttl("rq:job:x:dependents") == -1
    assert queued("reports", redis_client) == 1


@pytest.mark.usefixtures("process")
def test_junk_list_of_wrong_type_keeps_no_junk_queued(redis_client: redis.Redis) -> None:
    redis_client.set(keys.junk(NAME), "x")
    redis_client.set(keys.junk_totals(NAME), "x")
    junk.plant(redis_client, NAME, "pickled", 5)
    run_all(redis_client)
    assert queued(NAME, redis_client) == 0
    assert JunkStore(NAME, redis_client).report() is None


@pytest.mark.usefixtures("process")
def test_maintenance_junk_in_registries_is_taken_out(redis_client: redis.Redis) -> None:
    ours = queue(NAME, redis_client)
    for kind in ("pickled", "id not UTF-8"):
        junk.plant(redis_client, NAME, kind, MANY)
    ids = cast(list[bytes], redis_client.lrange(ours.key, 0, -1))
    redis_client.rename(ours.key, ours.intermediate_queue_key)
    for name in ("wip", "finished", "failed", "deferred", "scheduled", "ready", "canceled"):
        members = {job_id + b":execution" * (name == "wip"): 1 for job_id in ids}
        redis_client.zadd(f"rq:{name}:{NAME}", members)
    redis_client.zadd(f"rq:wip:{NAME}", {"gone:execution": 1, "no execution": 1})
    redis_client.sadd(f"rq:workers:{NAME}", b"\xff\xfe", "rq:worker:gone")
    assert run_all(redis_client) < SOON_S
    assert not redis_client.exists(ours.intermediate_queue_key, f"rq:wip:{NAME}")
    assert not redis_client.exists(f"rq:failed:{NAME}", f"rq:finished:{NAME}")
    assert not redis_client.exists(f"rq:workers:{NAME}")
    assert report(redis_client)[0] == 4 * MANY + 1


@pytest.mark.usefixtures("process")
def test_maintenance_leaves_other_applications_alone(redis_client: redis.Redis) -> None:
    redis_client.sadd("rq:groups", "theirs")
    redis_client.sadd("rq:group:theirs", "gone")
    redis_client.zadd("rq:wip:reports", {"gone:execution": 1})
    run_all(redis_client)
    assert redis_client.smembers("rq:group:theirs") == {b"gone"}
    assert redis_client.zcard("rq:wip:reports") == 1
