"""Other applications that use RQ and rq-scheduler in the same Redis database."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import pytest
import redis
import rq_scheduler
from rq import SimpleWorker as PlainWorker
from rq.queue import Queue as PlainQueue

from clusterer.jobs import keys, queue
from clusterer.jobs.keys import PERIODIC_IDS
from clusterer.services import Context
from clusterer.services.doctor import fleet as fleet_checks
from clusterer.services.doctor import values
from clusterer.services.doctor.finding import Finding, Level
from clusterer.services.live import Reader
from clusterer.services.status import fleet as fleets
from clusterer.settings import DATABASE_QUEUE, DEFAULT_DELIVERY_QUEUE, MAINTENANCE_QUEUE, Settings
from scheduler import Scheduler, periodic_jobs
from tests.support import junk
from tests.support.processes import spawn, wait_until
from tests.support.wrong_values import put_wrong_type
from workers import Worker

SHARED = rq_scheduler.Scheduler.scheduled_jobs_key
SHARED_LOCK = rq_scheduler.Scheduler.scheduler_lock_key
JOBS = periodic_jobs(persistent_mode=False)
OURS = {job.job_id for job in JOBS}


class FormerScheduler(Scheduler):
    """The scheduler of the version before, which kept its schedule in rq-scheduler's keys."""

    scheduled_jobs_key = SHARED
    scheduler_lock_key = SHARED_LOCK
    redis_scheduler_namespace_prefix = rq_scheduler.Scheduler.redis_scheduler_namespace_prefix


def findings(redis_url: str) -> list[Finding]:
    context = Context(Settings(redis_url=redis_url))
    try:
        return list(fleet_checks.check(context, fleets.read(context)))
    finally:
        context.close()


def texts(redis_url: str, check: str, level: Level = Level.WARN) -> list[str]:
    found = findings(redis_url)
    assert all(item.advice for item in found if item.level is not Level.OK)
    return [item.text for item in found if item.check == check and item.level is level]


# ------------------------------------------------------------------------- the schedule


def test_scheduler_keys_are_not_those_of_others() -> None:
    assert Scheduler.scheduled_jobs_key.startswith("clusterer:")
    assert Scheduler.scheduler_lock_key.startswith("clusterer:")
    assert Scheduler.redis_scheduler_namespace_prefix.startswith("clusterer:")


def test_scheduler_foreign_jobs_and_lock_stay(redis_url: str, redis_client: redis.Redis) -> None:
    redis_client.set(SHARED_LOCK, "theirs")
    redis_client.zadd(SHARED, {b"monthly-report": 1, b"\xff\xfe": 1})
    with spawn(["-m", "scheduler"], {"CLUSTERER_REDIS_URL": redis_url}) as process:
        process.wait_for_output("scheduler: now active")
        wait_until(lambda: set(queue(MAINTENANCE_QUEUE, redis_client).job_ids) >= OURS)
        wait_until(lambda: redis_client.zscore(keys.SCHEDULED, "clusterer-probe"))
    assert redis_client.get(SHARED_LOCK) == b"theirs"
    assert redis_client.zrange(SHARED, 0, -1) == [b"monthly-report", b"\xff\xfe"]
    assert not redis_client.exists(keys.REFUSED)


def test_scheduler_former_schedule_is_cleaned(redis_client: redis.Redis) -> None:
    left = dict.fromkeys(PERIODIC_IDS, time.time() - 60)
    redis_client.zadd(SHARED, {**left, "monthly-report": 1})
    Scheduler(redis_client, JOBS).enqueue_jobs()
    assert redis_client.zrange(SHARED, 0, -1) == [b"monthly-report"]


def test_scheduler_former_far_future_is_cleaned(redis_client: redis.Redis) -> None:
    redis_client.zadd(SHARED, dict.fromkeys(PERIODIC_IDS, time.time() + 3600))
    Scheduler(redis_client, JOBS).enqueue_jobs()
    assert not redis_client.exists(SHARED)


def test_scheduler_beside_former_version_both_tick(redis_client: redis.Redis) -> None:
    former, ours = FormerScheduler(redis_client, JOBS), Scheduler(redis_client, JOBS)
    for _ in range(2):
        former.enqueue_jobs()
        ours.enqueue_jobs()
        ours._cleaned_at = float("-inf")
    assert former.active
    assert ours.active
    assert sorted(queue(MAINTENANCE_QUEUE, redis_client).job_ids) == sorted(OURS)
    assert redis_client.zcard(SHARED) == redis_client.zcard(keys.SCHEDULED) == len(OURS)


def test_scheduler_ticks_beside_a_wrong_typed_key(redis_client: redis.Redis) -> None:
    redis_client.set(SHARED, "x")
    assert 0 < Scheduler(redis_client, JOBS).enqueue_jobs() <= 0.5
    assert redis_client.get(SHARED) == b"x"


def test_scheduler_refused_jobs_are_bounded(redis_client: redis.Redis) -> None:
    redis_client.zadd(keys.REFUSED, {f"old-{n}": n for n in range(1200)})
    redis_client.zadd(keys.SCHEDULED, {"stranger": 5000})
    Scheduler(redis_client, JOBS).enqueue_jobs()
    assert redis_client.zcard(keys.REFUSED) == 1000
    assert redis_client.zscore(keys.REFUSED, "stranger") == 5000


@pytest.mark.parametrize(
    "key", [keys.SCHEDULED, keys.LOCK, keys.REFUSED, f"rq:queue:{MAINTENANCE_QUEUE}"]
)
def test_scheduler_moves_key_of_wrong_type_aside(
    redis_url: str, redis_client: redis.Redis, key: str
) -> None:
    redis_client.zadd(keys.SCHEDULED, {"stranger": 1})
    with spawn(["-m", "scheduler"], {"CLUSTERER_REDIS_URL": redis_url}) as process:
        process.wait_for_output("scheduler: now active")
        spoil = redis_client.pipeline(transaction=True)  # the scheduler writes the key at any time
        spoil.delete(key)
        spoil.hset(key, "field", "x")
        spoil.execute()
        redis_client.zadd(keys.SCHEDULED if key == keys.REFUSED else "other", {"stranger": 1})
        process.wait_for_output(f"moved to {keys.moved_aside(key)}")
        since = time.time()
        wait_until(lambda: _due(redis_client) > since, message="the scheduler ticks")
        assert "waiting for Redis" not in process.output()
    assert redis_client.hget(keys.moved_aside(key), "field") == b"x"


def test_scheduler_moves_its_own_key_aside(redis_client: redis.Redis) -> None:
    own = Scheduler(redis_client, JOBS)
    redis_client.set(own.key, "x")
    for _ in range(2):
        own._turn()
    assert redis_client.get(keys.moved_aside(own.key)) == b"x"
    assert redis_client.hexists(own.key, "birth")
    assert queue(MAINTENANCE_QUEUE, redis_client).count == len(JOBS)


def _due(client: redis.Redis) -> float:
    return client.zscore(keys.SCHEDULED, "clusterer-probe") or 0.0


def test_scheduler_lock_without_ttl_ends(redis_client: redis.Redis) -> None:
    redis_client.hset(keys.LOCK, "field", "x")
    standing_by = Scheduler(redis_client, JOBS)
    assert not standing_by.acquire_lock()
    assert 0 < redis_client.pttl(keys.LOCK) <= 3000


# ------------------------------------------------------------------------------- doctor


def test_doctor_names_other_applications(redis_url: str, redis_client: redis.Redis) -> None:
    PlainQueue("reports", connection=redis_client).enqueue("time.sleep", 0)
    PlainWorker(["reports"], connection=redis_client).register_birth()  # type: ignore[no-untyped-call]
    rq_scheduler.Scheduler("reports", connection=redis_client).register_birth()
    redis_client.zadd(SHARED, {"monthly-report": 1, "clusterer-probe": 1})
    (text,) = texts(redis_url, "other applications")
    assert text.endswith("1 queues (reports), 1 workers, 1 scheduled jobs")
    (scheduler,) = texts(redis_url, "scheduler", Level.ERROR)
    assert scheduler.startswith("no scheduler runs"), "the other application's is not ours"


def test_doctor_own_worker_is_no_stranger(redis_url: str, redis_client: redis.Redis) -> None:
    worker = Worker("clusterer-delivery-sip7", connection=redis_client)
    worker._register()
    worker.unsubscribe()
    assert texts(redis_url, "other applications") == []


PLAIN = ["-m", "rq.cli", "worker", DEFAULT_DELIVERY_QUEUE, MAINTENANCE_QUEUE]
"""RQ's own worker, which unpickles jobs, or with --serializer json runs them in a fork each."""


@pytest.mark.parametrize("options", [[], ["--serializer", "json"]], ids=["pickle", "json"])
def test_doctor_names_a_plain_rq_worker(
    redis_url: str, redis_client: redis.Redis, options: list[str]
) -> None:
    with spawn([*PLAIN, *options, "--url", redis_url]) as process:
        process.wait_for_output("Listening on")
        for kind in ("delivery", "maintenance"):
            stranger, none = texts(redis_url, f"{kind} workers", Level.ERROR)
            taken = f"pid {process.pid} takes jobs of clusterer-{kind} and is no worker of"
            assert taken in stranger
            assert none == f"no worker of clusterer takes jobs of clusterer-{kind}"
        assert texts(redis_url, "other applications") == []


def test_doctor_names_plain_worker_beside_ours(redis_url: str, redis_client: redis.Redis) -> None:
    PlainWorker([DATABASE_QUEUE], connection=redis_client).register_birth()  # type: ignore[no-untyped-call]
    PlainWorker([MAINTENANCE_QUEUE], connection=redis_client).register_birth()  # type: ignore[no-untyped-call]
    worker = Worker(MAINTENANCE_QUEUE, connection=redis_client)
    worker._register()
    worker.unsubscribe()
    assert len(texts(redis_url, "maintenance workers", Level.ERROR)) == 1
    assert len(texts(redis_url, "maintenance workers", Level.OK)) == 1
    assert len(texts(redis_url, "database workers", Level.ERROR)) == 1


def test_doctor_rq_command_with_our_class_is_ours(
    redis_url: str, redis_client: redis.Redis
) -> None:
    words = ["-m", "rq.cli", "worker", "-w", "workers.Worker", "--url", redis_url]
    environment = {"CLUSTERER_REDIS_URL": redis_url}
    with spawn([*words, MAINTENANCE_QUEUE], environment) as process:
        process.wait_for_output("Listening on")
        (text,) = texts(redis_url, "maintenance workers", Level.OK)
        assert f"pid {process.pid}" in text
        assert texts(redis_url, "maintenance workers", Level.ERROR) == []


def test_live_views_and_metrics_leave_plain_workers_out(
    redis_url: str, redis_client: redis.Redis
) -> None:
    PlainWorker([MAINTENANCE_QUEUE], connection=redis_client).register_birth()  # type: ignore[no-untyped-call]
    redis_client.zadd(keys.SCHEDULED, {"clusterer-probe": time.time() + 60})
    with contextlib.closing(Context(Settings(redis_url=redis_url))) as context:
        assert fleets.read(context).maintenance.workers == ()
        reader = Reader(context)
        assert reader.read().stalled == "no maintenance worker runs"
        worker = Worker(MAINTENANCE_QUEUE, connection=redis_client)
        worker._register()
        worker.unsubscribe()
        assert reader.read().stalled == ""
        assert [each.name for each in fleets.read(context).maintenance.workers] == [worker.name]


@pytest.mark.parametrize("key", [keys.MAINTENANCE_WORKERS, keys.SCHEDULED])
def test_live_views_survive_keys_of_wrong_type(
    redis_url: str, redis_client: redis.Redis, key: str
) -> None:
    redis_client.set(key, "x")
    with contextlib.closing(Context(Settings(redis_url=redis_url))) as context:
        assert Reader(context).read().stalled == "no scheduler runs"


@pytest.mark.parametrize("member", [b"rq:worker:w", b"\xff\xfe"])
def test_live_views_survive_a_hostile_worker(
    redis_url: str, redis_client: redis.Redis, member: bytes
) -> None:
    redis_client.sadd(keys.MAINTENANCE_WORKERS, member)
    redis_client.set(member, "x")
    redis_client.zadd(keys.SCHEDULED, {"clusterer-probe": time.time() + 60})
    with contextlib.closing(Context(Settings(redis_url=redis_url))) as context:
        assert Reader(context).read().stalled == "no maintenance worker runs"


@pytest.mark.parametrize("key", ["rq:workers", "rq:queues", "clusterer:queues"])
def test_doctor_names_members_that_are_no_text(
    redis_url: str, redis_client: redis.Redis, key: str
) -> None:
    redis_client.sadd(key, b"\xff\xfe")
    (text,) = texts(redis_url, "junk jobs")
    assert text == f"member b'\\xff\\xfe' of {key} and is left out"


@pytest.mark.parametrize(
    "key",
    [
        "rq:workers",
        "rq:worker:w",
        "rq:queues",
        "clusterer:queues",
        f"rq:queue:{MAINTENANCE_QUEUE}",
        f"rq:failed:{MAINTENANCE_QUEUE}",
        SHARED,
        keys.SCHEDULED,
    ],
)
def test_doctor_names_keys_of_wrong_type(
    redis_url: str, redis_client: redis.Redis, key: str
) -> None:
    redis_client.set(key, "x")
    if key == "rq:worker:w":
        redis_client.sadd("rq:workers", key)
    assert f"{key}, which is of the wrong type and is left out" in texts(redis_url, "junk jobs")


@pytest.mark.parametrize(
    "key",
    [
        keys.SCHEDULED,
        keys.REFUSED,
        keys.LOCK,
        keys.scheduler("s"),
        keys.junk(MAINTENANCE_QUEUE),
        keys.junk_totals(MAINTENANCE_QUEUE),
    ],
)
def test_doctor_names_wrong_type_of_own_key(
    redis_url: str, redis_client: redis.Redis, key: str
) -> None:
    put_wrong_type(redis_client, key)
    with contextlib.closing(Context(Settings(redis_url=redis_url))) as context:
        (found,) = values.check(context, [])
    assert found.level is Level.ERROR
    assert found.text.startswith(f"key {key} holds a ")
    assert f"redis-cli DEL {key}" in found.advice


def test_doctor_names_many_bad_values_briefly(redis_url: str, redis_client: redis.Redis) -> None:
    redis_client.sadd("rq:workers", *(b"\xff%d" % number for number in range(100)))
    found = texts(redis_url, "junk jobs")
    assert len(found) == 4
    assert found[-1] == "and 97 more like these"


def test_doctor_names_junk_jobs(redis_url: str, redis_client: redis.Redis) -> None:
    junk.plant(redis_client, MAINTENANCE_QUEUE, "pickled", 7)
    Worker(MAINTENANCE_QUEUE, connection=redis_client).work(burst=True)
    (text,) = texts(redis_url, "junk jobs")
    assert text.startswith(f"7 in {MAINTENANCE_QUEUE} since 20")
    assert text.endswith(": 'junk-6' its data is pickled")


def test_doctor_survives_hostile_totals(redis_url: str, redis_client: redis.Redis) -> None:
    hostile: dict[Any, Any] = {"count": "nan", "since_ms": "9" * 30, "last_ms": b"\xff"}
    redis_client.hset(keys.junk_totals(MAINTENANCE_QUEUE), mapping=hostile)
    redis_client.rpush(keys.junk(MAINTENANCE_QUEUE), b"\xff")
    (text,) = texts(redis_url, "junk jobs")
    assert text.startswith(f"0 in {MAINTENANCE_QUEUE}")


# --------------------------------------------------------------- RQ's keys of another type


@pytest.mark.parametrize(
    "key",
    [
        "rq:queue:{}",
        "rq:queue:{}:intermediate",
        "rq:wip:{}",
        "rq:workers:{}",
        "rq:workers",
        "rq:queues",
    ],
)
def test_worker_moves_key_of_wrong_type_aside(
    redis_url: str, redis_client: redis.Redis, key: str
) -> None:
    wrong = key.format(MAINTENANCE_QUEUE)
    redis_client.set(wrong, "x")
    env = {"CLUSTERER_REDIS_URL": redis_url}
    with (
        spawn(["-m", "workers", "maintenance"], env) as worker,
        spawn(["-m", "scheduler"], env) as scheduler,
    ):
        finished = queue(MAINTENANCE_QUEUE, redis_client).finished_job_registry
        wait_until(lambda: len(finished.get_job_ids()) == 3, message="the periodic jobs ran")
        # The scheduler does the same: one of the two is the first.
        assert f"moved to {keys.moved_aside(wrong)}" in worker.output() + scheduler.output()
        assert "waiting for Redis" not in worker.output()
    assert redis_client.get(keys.moved_aside(wrong)) == b"x"
