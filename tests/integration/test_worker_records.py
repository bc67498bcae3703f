"""RQ's records of a job, where Redis goes away just before they are written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from rq.job import JobStatus

from clusterer.jobs import enqueue_delivery, queue
from clusterer.settings import DEFAULT_DELIVERY_QUEUE
from tests.support.processes import EVENTUALLY_S, ChildProcess, spawn, wait_until
from tests.support.redis_server import RedisServer

QUEUE = DEFAULT_DELIVERY_QUEUE
BACK_S = EVENTUALLY_S


def _full(server: RedisServer, *, back: bool) -> None:
    with server.client() as client:
        client.config_set("maxmemory", 0 if back else 1)


def _replica(server: RedisServer, *, back: bool) -> None:
    with server.client() as client:
        client.replicaof(*(("NO", "ONE") if back else ("127.0.0.1", "1")))


def _killed(server: RedisServer, *, back: bool) -> None:
    if back:
        server.start()
    else:
        server.kill()


def _paused(server: RedisServer, *, back: bool) -> None:
    if back:
        server.resume()
    else:
        server.pause()


@contextmanager
def _busy_worker(server: RedisServer, flag: Path) -> Iterator[ChildProcess]:
    """Run a worker in a job that ends once the file ``flag`` is there."""
    env = {"CLUSTERER_REDIS_URL": server.url, "STUB_ENGINE": "file", "STUB_FILE": str(flag)}
    with spawn(["-m", "tests.support.stubbed", "workers", "delivery"], env) as process:
        process.wait_for_output("takes jobs of")
        with server.client() as client:
            enqueue_delivery(QUEUE, client)
        process.wait_for_output("engine runs")
        yield process


def _finish_without_redis(process: ChildProcess, flag: Path) -> None:
    flag.touch()
    process.wait_for_output("engine ran")
    process.wait_for_output("waiting for Redis")


@pytest.mark.parametrize("take", [_killed, _paused, _full, _replica])
def test_job_that_ends_without_redis_is_no_failure(
    own_redis_server: Callable[[], RedisServer],
    tmp_path: Path,
    take: Callable[..., None],
) -> None:
    server, flag = own_redis_server(), tmp_path / "flag"
    with _busy_worker(server, flag) as process:
        take(server, back=False)
        _finish_without_redis(process, flag)
        take(server, back=True)
        process.wait_for_output("Redis is back", BACK_S)
        with server.client() as client:
            ours = queue(QUEUE, client)
            wait_until(lambda: ours.finished_job_registry.count == 1, BACK_S)
            assert ours.failed_job_registry.count == ours.started_job_registry.count == 0
            (job_id,) = ours.finished_job_registry.get_job_ids()
            job = ours.fetch_job(job_id)
            assert job is not None
            assert job.get_status() is JobStatus.FINISHED
            enqueue_delivery(QUEUE, client)
        wait_until(lambda: process.output().count("engine ran") == 2, message="the next job runs")
        assert process.output().count("waiting for Redis") == 1
        assert "Traceback" not in process.output()


def test_job_that_a_redis_without_data_forgot_is_let_go(
    own_redis_server: Callable[[], RedisServer], tmp_path: Path
) -> None:
    server, flag = own_redis_server(), tmp_path / "flag"
    with _busy_worker(server, flag) as process:
        with server.client() as client:
            client.config_set("maxmemory", 1)
            _finish_without_redis(process, flag)
            client.flushall()
            client.config_set("maxmemory", 0)
            process.wait_for_output("Redis is back", BACK_S)
            assert _hashes_of_jobs(client) == []
            enqueue_delivery(QUEUE, client)
        wait_until(lambda: process.output().count("engine ran") == 2, message="the next job runs")
        assert "Traceback" not in process.output()


def _hashes_of_jobs(client: redis.Redis) -> list[bytes]:
    return list(client.scan_iter("rq:job:*"))
