"""Worker processes over stubbed services: their jobs, their end, and Redis going away."""

from __future__ import annotations

import contextlib
import functools
import shutil
import signal
import time
from collections.abc import Callable, Iterator

import pytest
import redis
from rq import Worker as PlainWorker

from clusterer.jobs import enqueue_delivery, queue, queued
from clusterer.settings import DATABASE_QUEUE, DEFAULT_DELIVERY_QUEUE, MAINTENANCE_QUEUE
from tests.support.processes import EVENTUALLY_S, LATE_S, ChildProcess, spawn, wait_until
from tests.support.redis_server import RedisServer
from workers import Worker

QUEUE = DEFAULT_DELIVERY_QUEUE
STUBBED = ["-m", "tests.support.stubbed"]
END_S = 5.0
BACK_S = 5.0 + LATE_S


@contextlib.contextmanager
def worker(
    url: str, kind: str = "delivery", engine: str = "return", *, measured: bool = True
) -> Iterator[ChildProcess]:
    env = {"CLUSTERER_REDIS_URL": url, "STUB_ENGINE": engine}
    with spawn([*STUBBED, "workers", kind], env, measured=measured) as process:
        process.wait_for_output("takes jobs of")
        yield process


def end(process: ChildProcess, number: int = signal.SIGTERM) -> tuple[int, float]:
    """Send the signal; return the exit code and how many seconds the process took to end."""
    began = time.monotonic()
    process.signal(number)
    return process.wait(EVENTUALLY_S), time.monotonic() - began


def registered(client: redis.Redis, name: str = QUEUE) -> int:
    return PlainWorker.count(queue=queue(name, client))


def _ran(process: ChildProcess, times: int) -> bool:
    return process.output().count("engine ran") == times


@pytest.mark.parametrize(
    ("kind", "name", "functions"),
    [
        ("maintenance", MAINTENANCE_QUEUE, ["probe", "check_timeouts", "sweep"]),
        ("database", DATABASE_QUEUE, ["sync"]),
    ],
)
def test_worker_of_each_kind_runs_its_jobs(
    redis_url: str, redis_client: redis.Redis, kind: str, name: str, functions: list[str]
) -> None:
    with worker(redis_url, kind) as process:
        for function in functions:
            queue(name, redis_client).enqueue(f"workers.{function}")
            process.wait_for_output(f"{function.removeprefix('check_')} ran")


def test_worker_keeps_engine_and_sockets_between_jobs(
    redis_url: str, redis_client: redis.Redis
) -> None:
    with worker(redis_url) as process:
        for count in (1, 2, 3):
            enqueue_delivery(QUEUE, redis_client)
            wait_until(functools.partial(_ran, process, count))
        assert process.output().count(f"engine for {QUEUE}") == 1
        assert end(process)[0] == 0
        assert process.output().count("engine closed") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_worker_idle_ends_at_once_and_unregisters(
    redis_url: str, redis_client: redis.Redis, number: int
) -> None:
    with worker(redis_url) as process:
        wait_until(lambda: registered(redis_client) == 1)
        code, took_s = end(process, number)
    assert code == 0
    assert took_s < 5 + LATE_S
    assert registered(redis_client) == 0


def test_worker_lost_in_redis_registers_again(redis_url: str, redis_client: redis.Redis) -> None:
    with worker(redis_url) as process:
        wait_until(lambda: registered(redis_client) == 1)
        redis_client.flushall()
        assert registered(redis_client) == 0
        process.wait_for_output("registration missing in Redis, registered again")
        wait_until(lambda: registered(redis_client) == 1)
        enqueue_delivery(QUEUE, redis_client)
        process.wait_for_output("engine ran")


def test_worker_running_delivery_stops_in_order(redis_url: str, redis_client: redis.Redis) -> None:
    with worker(redis_url, engine="wait") as process:
        enqueue_delivery(QUEUE, redis_client)
        process.wait_for_output("engine runs")
        code, took_s = end(process)
        assert "engine ran, stop True" in process.output()
        assert "engine closed" in process.output()
    assert code == 0
    assert took_s < 2 + LATE_S
    assert queue(QUEUE, redis_client).finished_job_registry.count == 1


def test_worker_stop_command_of_rq_stops_delivery(
    redis_url: str, redis_client: redis.Redis
) -> None:
    with worker(redis_url, engine="wait") as process:
        enqueue_delivery(QUEUE, redis_client)
        process.wait_for_output("engine runs")
        (name,) = (w.name for w in PlainWorker.all(connection=redis_client))
        redis_client.publish(f"rq:pubsub:{name}", "no JSON")
        redis_client.publish(f"rq:pubsub:{name}", '{"command": "shutdown"}')
        assert process.wait(EVENTUALLY_S) == 0
        assert "worker commands: a round failed" in process.output()


def test_worker_job_ignoring_stop_does_not_keep_process(
    redis_url: str, redis_client: redis.Redis
) -> None:
    with worker(redis_url, engine="ignore") as process:
        enqueue_delivery(QUEUE, redis_client)
        process.wait_for_output("engine runs")
        code, took_s = end(process)
        assert "did not end in 4 s" in process.output()
    assert code == 1
    assert took_s < END_S + LATE_S


def test_worker_redis_down_during_job_is_no_failure(
    redis_url: str, redis_client: redis.Redis
) -> None:
    with worker(redis_url, engine="away") as process:
        enqueue_delivery(QUEUE, redis_client)
        process.wait_for_output("job deliver: postponed, Redis is away: stubbed away")
        ours = queue(QUEUE, redis_client)
        wait_until(lambda: ours.finished_job_registry.count == 1)
        assert ours.failed_job_registry.count == 0


def _run_one(process: ChildProcess, server: RedisServer) -> None:
    with server.client() as client:
        enqueue_delivery(QUEUE, client)
        process.wait_for_output("engine ran", BACK_S)


def test_worker_redis_restarted_is_served_again(
    own_redis_server: Callable[[], RedisServer],
) -> None:
    server = own_redis_server()
    with worker(server.url) as process:
        server.stop()
        process.wait_for_output("waiting for Redis")
        server.start()
        _run_one(process, server)
        assert process.output().count("waiting for Redis") == 1


def test_worker_redis_without_data_registers_again(
    own_redis_server: Callable[[], RedisServer],
) -> None:
    server = own_redis_server()
    with worker(server.url) as process:
        with server.client() as client:
            wait_until(
                lambda: client.info("clients")["blocked_clients"], message="it waits for a job"
            )
        server.stop()
        shutil.rmtree(server.directory / "appendonlydir")
        server.start()
        process.wait_for_output("Redis is back", BACK_S)
        with server.client() as client:
            assert registered(client) == 1
        _run_one(process, server)


def _full(client: redis.Redis, *, again: bool = False) -> None:
    client.config_set("maxmemory", 0 if again else 1)


def _replica(client: redis.Redis, *, again: bool = False) -> None:
    client.replicaof(*(("NO", "ONE") if again else ("127.0.0.1", "1")))


@pytest.mark.parametrize(
    ("refuse", "remedy"),
    [(_full, "raise maxmemory"), (_replica, "point redis_url at the primary server")],
)
def test_worker_redis_refusing_writes_logs_one_line(
    own_redis_server: Callable[[], RedisServer], refuse: Callable[..., None], remedy: str
) -> None:
    server = own_redis_server()
    with server.client() as client, worker(server.url, "maintenance") as process:
        refuse(client)
        process.wait_for_output("waiting for Redis")
        with spawn([*STUBBED, "workers", "delivery"], {"CLUSTERER_REDIS_URL": server.url}) as late:
            late.wait_for_output("waiting for Redis")
            refuse(client, again=True)
            for waiting in (process, late):
                waiting.wait_for_output("Redis is back", BACK_S)
                assert waiting.output().count("waiting for Redis") == 1
                assert f"{server.url}: " in waiting.output()
                assert remedy in waiting.output()
                assert "Traceback" not in waiting.output()
            _run_one(late, server)
            assert registered(client) == registered(client, MAINTENANCE_QUEUE) == 1


@pytest.mark.slow
def test_worker_redis_frozen_is_waited_for(own_redis_server: Callable[[], RedisServer]) -> None:
    server = own_redis_server()
    with worker(server.url) as process:
        server.pause()
        process.wait_for_output("waiting for Redis")
        server.resume()
        process.wait_for_output("Redis is back", BACK_S)
        _run_one(process, server)


def test_worker_waits_for_a_redis_that_is_not_there_yet(
    own_redis_server: Callable[[], RedisServer],
) -> None:
    server = own_redis_server()
    server.stop()
    with spawn([*STUBBED, "workers", "delivery"], {"CLUSTERER_REDIS_URL": server.url}) as process:
        process.wait_for_output("waiting for Redis")
        server.start()
        _run_one(process, server)


@pytest.mark.parametrize("running", [True, False])
def test_worker_ends_in_time_without_redis(
    own_redis_server: Callable[[], RedisServer], running: bool
) -> None:
    server = own_redis_server()
    # Two threads may end the process at once, and coverage's SQLite takes that ill.
    with worker(server.url, engine="wait", measured=False) as process:
        if running:
            with server.client() as client:
                enqueue_delivery(QUEUE, client)
            process.wait_for_output("engine runs")
        server.pause()
        code, took_s = end(process)
        server.resume()
    assert code in (0, 1)
    assert took_s < END_S + LATE_S


def test_plain_rq_worker_runs_our_jobs(redis_url: str, redis_client: redis.Redis) -> None:
    """The very line that the package's docstring gives."""
    import workers  # noqa: PLC0415

    line = (workers.__doc__ or "").split("::")[1].replace("\\\n", " ").split()
    line[line.index("--url") + 1] = redis_url
    assert line[:2] == ["rq", "worker"]
    with spawn([*STUBBED, "rq.cli", *line[1:]], {"CLUSTERER_REDIS_URL": redis_url}) as process:
        enqueue_delivery(QUEUE, redis_client)
        process.wait_for_output("engine ran")
        wait_until(lambda: queue(QUEUE, redis_client).finished_job_registry.count == 1)
        code, took_s = end(process)
        assert "engine closed" in process.output()
    assert code == 0
    assert took_s < 2 + LATE_S


def test_plain_rq_worker_refuses_two_queues(redis_url: str) -> None:
    words = ["worker", "-w", "workers.Worker", "--url", redis_url, "one", "two"]
    with spawn([*STUBBED, "rq.cli", *words]) as process:
        assert process.wait() == 1
        assert "one queue per worker, not 2: one, two" in process.output()


def test_rq_info_shows_queues_and_workers(redis_url: str) -> None:
    kinds = {
        "delivery": QUEUE,
        "maintenance": MAINTENANCE_QUEUE,
        "database": DATABASE_QUEUE,
    }
    with contextlib.ExitStack() as stack:
        for kind in kinds:
            stack.enter_context(worker(redis_url, kind))

        def info() -> str:
            words = ["-m", "rq.cli", "info", "--raw", "--url", redis_url]
            with spawn(words, measured=False) as process:
                assert process.wait() == 0
                return process.output()

        shown = wait_until(lambda: text if (text := info()).count(" idle ") == 3 else "")
    for name in kinds.values():
        assert f"queue {name} 0, 0 executing, 0 finished, 0 failed" in shown
        assert f" idle {name}. jobs: 0 finished, 0 failed" in shown


def test_worker_killed_loses_no_waiting_job(redis_url: str, redis_client: redis.Redis) -> None:
    with worker(redis_url, engine="wait") as process:
        enqueue_delivery(QUEUE, redis_client)
        process.wait_for_output("engine runs")
        enqueue_delivery(QUEUE, redis_client)
        process.kill()
    assert queued(QUEUE, redis_client) == 1
    with worker(redis_url) as process:
        process.wait_for_output("engine ran")


def test_worker_heartbeat_keeps_long_job(redis_url: str, redis_client: redis.Redis) -> None:
    """The stub beats when it starts: by then RQ's own first sign of life is already there."""
    with worker(redis_url, engine="wait") as process:
        enqueue_delivery(QUEUE, redis_client)
        process.wait_for_output("engine runs")
        (name,) = (w.name for w in PlainWorker.all(connection=redis_client))
        (key,) = redis_client.scan_iter("rq:execution:*")

        def beaten() -> bool:
            created, beat = redis_client.hmget(key, "created_at", "last_heartbeat")
            return float(beat or 0) > float(created or 0)

        wait_until(beaten)
        assert 30 < redis_client.ttl(key) <= 60
        assert 60 < redis_client.ttl(f"rq:worker:{name}") <= 120


def test_worker_burst_ends_with_empty_queue(redis_url: str, redis_client: redis.Redis) -> None:
    for _ in range(3):
        enqueue_delivery(QUEUE, redis_client)
    with spawn(
        [*STUBBED, "workers", "delivery", "--burst"], {"CLUSTERER_REDIS_URL": redis_url}
    ) as process:
        assert process.wait() == 0
        assert process.output().count("engine ran") == 3


def test_bad_setting_is_one_line(redis_url: str) -> None:
    env = {"CLUSTERER_REDIS_URL": redis_url, "CLUSTERER_LINGER": "soon"}
    with spawn(["-m", "workers", "delivery"], env) as process:
        assert process.wait() == 1
        assert process.output().splitlines() == [
            "workers: linger must be a number, not 'soon' (CLUSTERER_LINGER)"
        ]


def test_worker_suspended_takes_no_job(redis_url: str, redis_client: redis.Redis) -> None:
    with worker(redis_url) as process:
        wait_until(lambda: registered(redis_client) == 1)
        redis_client.set("rq:suspended", 1)
        wait_until(
            lambda: any(w.get_state() == "suspended" for w in Worker.all(connection=redis_client))
        )
        enqueue_delivery(QUEUE, redis_client)
        assert queued(QUEUE, redis_client) == 1
        redis_client.delete("rq:suspended")
        process.wait_for_output("engine ran")
