"""Keys in which RQ records a job, of another type: moved aside, without a traceback."""

from __future__ import annotations

from functools import partial

import pytest
import redis

from clusterer.jobs import keys
from clusterer.settings import MAINTENANCE_QUEUE
from tests.support.processes import spawn, wait_until

JOB_ID = "clusterer-probe"
SIDE_KEYS = (
    f"rq:results:{JOB_ID}",
    f"rq:executions:{JOB_ID}",
    f"rq:job:{JOB_ID}:dependents",
    f"rq:finished:{MAINTENANCE_QUEUE}",
    f"rq:failed:{MAINTENANCE_QUEUE}",
    f"rq:wip:{MAINTENANCE_QUEUE}",
)


@pytest.mark.parametrize("kind", ["string", "list"])
def test_worker_moves_jobs_side_keys_aside(
    redis_url: str, redis_client: redis.Redis, kind: str
) -> None:
    def spoil() -> None:
        with redis_client.pipeline() as pipe:  # at once: the worker writes them as well
            pipe.delete(*SIDE_KEYS)
            for key in SIDE_KEYS:
                pipe.set(key, "x") if kind == "string" else pipe.rpush(key, "x")
            pipe.execute()

    spoil()
    env = {"CLUSTERER_REDIS_URL": redis_url}
    with spawn(["-m", "workers", "maintenance"], env) as worker:
        worker.wait_for_output("takes jobs of")
        with spawn(["-m", "scheduler"], env):
            for round_ in range(4):  # whatever writes them goes on
                ended = redis_client.hget(f"rq:job:{JOB_ID}", "ended_at") if round_ else None
                wait_until(partial(_ended_again, redis_client, ended), message="the job ran")
                spoil()
        output = worker.output()
    assert "Traceback" not in output
    for key in SIDE_KEYS:
        told = output.count(f"moved to {keys.moved_aside(key)}\n")
        assert told <= 1, key
        assert told == 1 or "dependents" in key, key  # that key the scheduler deletes


def test_worker_with_wrong_counts_records_jobs(redis_url: str, redis_client: redis.Redis) -> None:
    env = {"CLUSTERER_REDIS_URL": redis_url}
    with spawn(["-m", "workers", "maintenance"], env) as worker, spawn(["-m", "scheduler"], env):
        wait_until(partial(_ended_again, redis_client, None), message="the job ran")
        (own,) = redis_client.smembers("rq:workers")
        for _ in range(3):
            ended = redis_client.hget(f"rq:job:{JOB_ID}", "ended_at")
            for field in redis_client.hkeys(own):
                redis_client.hset(own, field, b"oops\xff")
            wait_until(partial(_ended_again, redis_client, ended), message="the job ran again")
            wait_until(lambda: redis_client.hget(own, "total_working_time") != b"oops\xff")
        assert "Traceback" not in worker.output()


def _ended_again(client: redis.Redis, before: bytes | str | None) -> bool:
    return client.hget(f"rq:job:{JOB_ID}", "ended_at") not in {before, b"", None}
