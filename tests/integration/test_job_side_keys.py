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


@pytest.mark.parametrize("wrong", SIDE_KEYS)
@pytest.mark.parametrize("kind", ["string", "list"])
def test_worker_moves_jobs_side_keys_aside(
    redis_url: str, redis_client: redis.Redis, wrong: str, kind: str
) -> None:
    def spoil() -> None:
        redis_client.delete(wrong)
        if kind == "string":
            redis_client.set(wrong, "x")
        else:
            redis_client.rpush(wrong, "x")

    spoil()
    env = {"CLUSTERER_REDIS_URL": redis_url}
    with spawn(["-m", "workers", "maintenance"], env) as worker:
        worker.wait_for_output("takes jobs of")
        with spawn(["-m", "scheduler"], env):
            for round_ in range(4):  # whatever writes it goes on
                ended = redis_client.hget(f"rq:job:{JOB_ID}", "ended_at") if round_ else None
                wait_until(partial(_ended_again, redis_client, ended), message="the job ran")
                spoil()
        output = worker.output()
    assert "Traceback" not in output
    assert output.count("moved to") <= 1
    if "dependents" not in wrong:  # that key the scheduler deletes
        assert f"moved to {keys.misfit(wrong)}" in output


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
