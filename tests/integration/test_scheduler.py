"""The scheduler: one active of several, whatever happens to it, to Redis and to its jobs."""

from __future__ import annotations

import contextlib
import pickle
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import cast

import pytest
import redis

from clusterer.jobs import Job, Queue, keys, queue, queued
from clusterer.settings import DATABASE_QUEUE, MAINTENANCE_QUEUE
from scheduler import Scheduler, periodic_jobs
from tests.support.processes import EVENTUALLY_S, LATE_S, ChildProcess, spawn, wait_until
from tests.support.redis_server import RedisServer

SCHEDULE = keys.SCHEDULED
LOCK = keys.LOCK
ALWAYS = {"clusterer-probe", "clusterer-timeouts", "clusterer-sweep"}
WITH_HISTORY = {"clusterer-history", *ALWAYS}
NOW_ACTIVE = "scheduler: now active"
TAKE_OVER_S = 5.0
BACK_S = 5.0 + LATE_S


@contextlib.contextmanager
def scheduler(url: str, *, persistent: bool = False) -> Iterator[ChildProcess]:
    """A scheduler whose jobs are all due each second: the history job is not among them."""
    env = {
        "CLUSTERER_REDIS_URL": url,
        "CLUSTERER_PERSISTENT_MODE": str(int(persistent)),
        "CLUSTERER_HISTORY_INTERVAL": "0",
    }
    with spawn(["-m", "scheduler"], env) as process:
        yield process


@contextlib.contextmanager
def active_and_standby(url: str) -> Iterator[tuple[ChildProcess, ChildProcess]]:
    with scheduler(url) as active:
        active.wait_for_output(NOW_ACTIVE)
        with scheduler(url) as standby, redis.Redis.from_url(url) as client:
            wait_until(lambda: len(list(client.scan_iter(keys.scheduler("*")))) == 2)
            assert NOW_ACTIVE not in standby.output()
            yield active, standby


def due_at(client: redis.Redis, job_id: str = "clusterer-probe") -> float:
    return client.zscore(SCHEDULE, job_id) or 0.0


def scheduled(client: redis.Redis) -> set[str]:
    return {job_id.decode() for job_id in cast(list[bytes], client.zrange(SCHEDULE, 0, -1))}


def ticks_on(client: redis.Redis, ticks: float = 2, timeout_s: float = EVENTUALLY_S) -> None:
    """Wait until the schedule has moved on by so many seconds."""
    before = wait_until(lambda: _away_is_zero(client), timeout_s)
    wait_until(lambda: _away_is_zero(client) >= before + ticks, timeout_s, "the scheduler ticks")


def _away_is_zero(client: redis.Redis) -> float:
    try:
        return due_at(client)
    except redis.RedisError:
        return 0.0


def waiting(client: redis.Redis, name: str = MAINTENANCE_QUEUE) -> list[str]:
    return sorted(queue(name, client).job_ids)


def take(client: redis.Redis) -> bytes:
    """Wait for the next maintenance job, as a worker does, and return its id."""
    found = client.blpop([f"rq:queue:{MAINTENANCE_QUEUE}"], timeout=EVENTUALLY_S)
    return cast(tuple[bytes, bytes], found)[1]


@pytest.fixture
def here(redis_client: redis.Redis) -> Scheduler:
    """A scheduler in this process; `enqueue_jobs` is one look."""
    return Scheduler(redis_client, periodic_jobs(persistent_mode=False))


# -------------------------------------------------------------------------- processes


def test_scheduler_without_worker_enqueues_each_job_once(
    redis_url: str, redis_client: redis.Redis
) -> None:
    with scheduler(redis_url, persistent=True):
        ticks_on(redis_client, 3)
        assert waiting(redis_client) == sorted(ALWAYS)
        assert waiting(redis_client, DATABASE_QUEUE) == ["clusterer-sync"]


def test_scheduler_enqueues_every_job_each_second(
    redis_url: str, redis_client: redis.Redis
) -> None:
    times: dict[bytes, list[float]] = {}
    with scheduler(redis_url):
        for _ in range(5 * len(ALWAYS)):
            times.setdefault(take(redis_client), []).append(time.monotonic())
    for job_id, seen in times.items():
        assert 2 < seen[4] - seen[0] < 10 + LATE_S, (job_id, seen)


def test_scheduler_two_at_once_do_not_double_jobs(
    redis_url: str, redis_client: redis.Redis
) -> None:
    with active_and_standby(redis_url):
        redis_client.delete(f"rq:queue:{MAINTENANCE_QUEUE}")
        taken = [(take(redis_client), time.monotonic()) for _ in range(4 * len(ALWAYS))]
    seen = [at for job_id, at in taken if job_id == b"clusterer-probe"]
    assert seen[3] - seen[0] > 2, seen


def test_killed_scheduler_is_replaced(redis_url: str, redis_client: redis.Redis) -> None:
    with active_and_standby(redis_url) as (active, standby):
        ticks_on(redis_client, 1)
        active.kill()
        killed_at = time.monotonic()
        before = due_at(redis_client)
        wait_until(lambda: due_at(redis_client) > before, message="the other ticks")
        assert time.monotonic() - killed_at < TAKE_OVER_S + LATE_S
        assert NOW_ACTIVE in standby.output()
        assert standby.output().count("standing by: another scheduler is active") == 1


def test_ended_scheduler_is_replaced_at_once(redis_url: str, redis_client: redis.Redis) -> None:
    with active_and_standby(redis_url) as (active, standby):
        held = redis_client.get(keys.LOCK)
        assert active.terminate() == 0
        assert held is not None
        assert redis_client.get(keys.LOCK) != held, "it gives the lock back as it ends"
        standby.wait_for_output(NOW_ACTIVE)
        ticks_on(redis_client)


def test_scheduler_woken_leaves_lock_to_other(redis_url: str, redis_client: redis.Redis) -> None:
    with active_and_standby(redis_url) as (active, standby):
        active.pause()
        standby.wait_for_output(NOW_ACTIVE)
        active.resume()
        active.wait_for_output("scheduler: no longer active")
        ticks_on(redis_client)
        assert active.output().count("scheduler: no longer active") == 1
        assert active.output().count(NOW_ACTIVE) == 1
        assert waiting(redis_client) == sorted(ALWAYS)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_scheduler_ends_at_once_and_frees_the_lock(
    redis_url: str, redis_client: redis.Redis, number: int
) -> None:
    with scheduler(redis_url) as process:
        process.wait_for_output(NOW_ACTIVE)
        began = time.monotonic()
        process.signal(number)
        assert process.wait() == 0
        assert time.monotonic() - began < 5.0 + LATE_S
    assert redis_client.get(LOCK) is None


@pytest.mark.parametrize("lost", [False, True], ids=["data kept", "data lost"])
def test_scheduler_redis_restarted_is_served_again(
    own_redis_server: Callable[[], RedisServer], lost: bool
) -> None:
    server = own_redis_server()
    with server.client() as client, scheduler(server.url) as process:
        ticks_on(client)
        server.stop()
        process.wait_for_output("waiting for Redis")
        if lost:
            shutil.rmtree(server.directory / "appendonlydir")
        server.start()
        before = due_at(client)
        wait_until(lambda: due_at(client) > before, BACK_S, "ticks again")
        process.wait_for_output("Redis is back")
        assert waiting(client) == sorted(ALWAYS)
        assert process.output().count("waiting for Redis") == 1


def test_scheduler_redis_frozen_waits_and_process_can_end(
    own_redis_server: Callable[[], RedisServer],
) -> None:
    server = own_redis_server()
    with server.client() as client, scheduler(server.url) as process:
        ticks_on(client)
        server.pause()
        process.wait_for_output("waiting for Redis")
        server.resume()
        process.wait_for_output("Redis is back", BACK_S)
        ticks_on(client, 1)
        server.pause()
        began = time.monotonic()
        assert process.terminate() == 0
        assert time.monotonic() - began < 2.5 + LATE_S
        server.resume()


def test_scheduler_waits_for_a_redis_that_is_not_there_yet(
    own_redis_server: Callable[[], RedisServer],
) -> None:
    server = own_redis_server()
    server.stop()
    with scheduler(server.url) as process:
        process.wait_for_output("waiting for Redis")
        server.start()
        with server.client() as client:
            ticks_on(client, 1)


def test_scheduler_hostile_values_do_not_end_it(redis_url: str, redis_client: redis.Redis) -> None:
    redis_client.zadd(SCHEDULE, {b"pickled": 1, b"\xff\xfe": 1, b"gone": 2})
    redis_client.hset("rq:job:pickled", mapping={"data": pickle.dumps(("os.system", None, (), {}))})
    with scheduler(redis_url) as process:
        ticks_on(redis_client)
        assert process.output().count("scheduler: unknown job") == 3
    refused = set(redis_client.zrange(keys.REFUSED, 0, -1))
    assert refused == {b"pickled", b"\xff\xfe", b"gone"}
    assert scheduled(redis_client) == ALWAYS


def test_scheduler_burst_enqueues_due_jobs_and_ends(
    redis_url: str, redis_client: redis.Redis
) -> None:
    with spawn(["-m", "scheduler", "--burst"], {"CLUSTERER_REDIS_URL": redis_url}) as process:
        assert process.wait() == 0
    assert waiting(redis_client) == sorted(WITH_HISTORY)


def test_bad_setting_is_one_line(redis_url: str) -> None:
    env = {"CLUSTERER_REDIS_URL": redis_url, "CLUSTERER_PERSISTENT_MODE": "perhaps"}
    with spawn(["-m", "scheduler"], env) as process:
        assert process.wait() == 1
        (line,) = process.output().splitlines()
    assert line.startswith("scheduler: persistent_mode must be yes or no, not 'perhaps'")


# --------------------------------------------------------------------------- one look


def test_scheduler_job_ids_are_stable_over_restarts(
    redis_client: redis.Redis, here: Scheduler
) -> None:
    here.enqueue_jobs()
    here.remove_lock()
    Scheduler(redis_client, here.jobs).enqueue_jobs()
    assert scheduled(redis_client) == ALWAYS
    assert waiting(redis_client) == sorted(ALWAYS)


def test_scheduler_jobs_equal_those_of_rq_scheduler(
    redis_client: redis.Redis, here: Scheduler
) -> None:
    here.enqueue_jobs()
    jobs = {job.id: job for job in here.get_jobs()}
    assert set(jobs) == ALWAYS
    probe = jobs["clusterer-probe"]
    assert isinstance(probe, Job)
    assert (probe.func_name, probe.origin) == ("workers.probe", MAINTENANCE_QUEUE)
    assert (probe.timeout, probe.result_ttl, probe.failure_ttl) == (10, -1, 3600)
    assert probe.meta == {"interval": 1}
    assert probe.is_queued
    assert redis_client.ttl(probe.key) == -1


def test_scheduler_waiting_job_is_not_enqueued_again(
    redis_client: redis.Redis, here: Scheduler
) -> None:
    for _ in range(3):
        redis_client.delete(SCHEDULE)
        here.enqueue_jobs()
    assert waiting(redis_client) == sorted(ALWAYS)


def test_scheduler_taken_job_is_enqueued_again(redis_client: redis.Redis, here: Scheduler) -> None:
    here.enqueue_jobs()
    taken = queue(MAINTENANCE_QUEUE, redis_client).pop(None)
    redis_client.delete(SCHEDULE)
    here.enqueue_jobs()
    assert taken in waiting(redis_client)


@pytest.mark.parametrize("spoil", ["expired", "not a hash", "planted"])
def test_scheduler_lost_or_damaged_job_is_made_again(
    redis_client: redis.Redis, here: Scheduler, spoil: str
) -> None:
    here.enqueue_jobs()
    key = "rq:job:clusterer-probe"
    if spoil != "planted":
        redis_client.delete(key)
    if spoil == "not a hash":
        redis_client.set(key, "text")
    if spoil == "planted":
        redis_client.hset(key, "success_callback_name", "os.abort")
    redis_client.delete(f"rq:queue:{MAINTENANCE_QUEUE}", SCHEDULE)
    here.enqueue_jobs()
    assert redis_client.hget(key, "success_callback_name") == b""
    assert waiting(redis_client) == sorted(ALWAYS)


def test_scheduler_job_not_due_is_left(redis_client: redis.Redis) -> None:
    jobs = [replace(job, interval_s=3600) for job in periodic_jobs(persistent_mode=False)]
    here = Scheduler(redis_client, jobs)
    here.enqueue_jobs()
    before = redis_client.zrange(SCHEDULE, 0, -1, withscores=True)
    redis_client.delete(f"rq:queue:{MAINTENANCE_QUEUE}")
    assert here.enqueue_jobs() == 0.5
    assert redis_client.zrange(SCHEDULE, 0, -1, withscores=True) == before
    assert waiting(redis_client) == []


def test_scheduler_next_look_is_when_a_job_is_due(redis_client: redis.Redis) -> None:
    jobs = [replace(job, interval_s=0.2) for job in periodic_jobs(persistent_mode=False)]
    assert Scheduler(redis_client, jobs).enqueue_jobs() == pytest.approx(0.2)


def test_scheduler_sync_job_of_earlier_run_is_removed(
    redis_client: redis.Redis, here: Scheduler
) -> None:
    before = Scheduler(redis_client, periodic_jobs(persistent_mode=True))
    before.enqueue_jobs()
    assert redis_client.zscore(SCHEDULE, "clusterer-sync") is not None
    before.remove_lock()
    redis_client.zadd(SCHEDULE, {"clusterer-sync": 1})
    here.enqueue_jobs()
    assert redis_client.zscore(SCHEDULE, "clusterer-sync") is None
    assert not redis_client.exists(keys.REFUSED)


def test_scheduler_lock_lost_before_commit_changes_nothing(
    redis_client: redis.Redis, here: Scheduler
) -> None:
    assert here.acquire_lock()
    _, plan, waiting_jobs, strangers = here._look()
    redis_client.set(LOCK, "another scheduler")
    assert plan.due
    assert not here._commit(plan, waiting_jobs, strangers)
    assert not redis_client.exists(SCHEDULE)
    assert queued(MAINTENANCE_QUEUE, redis_client) == 0


def test_scheduler_lock_lost_in_commit_changes_nothing(
    redis_client: redis.Redis, here: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = here._queue_of

    def steal(job: object) -> Queue:
        redis_client.set(LOCK, "another scheduler")
        return real(here.jobs[0])

    assert here.acquire_lock()
    _, plan, waiting_jobs, strangers = here._look()
    monkeypatch.setattr(here, "_queue_of", steal)
    assert not here._commit(plan, waiting_jobs, strangers)
    assert not redis_client.exists(SCHEDULE)


def test_scheduler_lock_of_other_is_kept(
    redis_client: redis.Redis, here: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis_client.set(LOCK, "another scheduler", px=60_000)
    monkeypatch.setattr(here, "_look", lambda: pytest.fail("only the active one looks"))
    assert here.enqueue_jobs() == 0.5
    assert not here.active
    here.remove_lock()
    assert redis_client.get(LOCK) == b"another scheduler"


def test_scheduler_lock_is_renewed(redis_client: redis.Redis, here: Scheduler) -> None:
    assert here.acquire_lock()
    redis_client.pexpire(LOCK, 500)
    here._renewed_at = -10.0
    assert here.acquire_lock()
    assert redis_client.pttl(LOCK) > 500


def test_scheduler_unexpected_error_does_not_end_it(
    here: Scheduler, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> float:
        raise ValueError("a bug")

    monkeypatch.setattr(here, "enqueue_jobs", fail)
    assert here._turn() == 0.5
    assert "scheduler: a round failed: ValueError: a bug" in caplog.text


def test_scheduler_end_does_not_wait_for_redis(
    here: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(here, "remove_lock", lambda: pytest.fail("asked Redis"))
    here._away = True
    here._leave()


def test_scheduler_foreign_jobs_not_due_are_left(
    redis_client: redis.Redis, here: Scheduler
) -> None:
    redis_client.zadd(SCHEDULE, {"later": time.time() + 1000})
    here.enqueue_jobs()
    assert redis_client.zscore(SCHEDULE, "later") is not None


def test_scheduler_thousands_of_foreign_jobs_hide_none(
    redis_client: redis.Redis, here: Scheduler
) -> None:
    redis_client.zadd(SCHEDULE, {f"stranger-{n}": 1 for n in range(250)})
    for _ in range(3):
        here.enqueue_jobs()
    assert scheduled(redis_client) == ALWAYS
    assert waiting(redis_client) == sorted(ALWAYS)
