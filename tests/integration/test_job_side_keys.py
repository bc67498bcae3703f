"""Keys that RQ keeps beside a job, of another type: moved aside before the job runs."""

from __future__ import annotations

from functools import partial

import pytest
import redis

from clusterer.jobs import keys, queue
from clusterer.settings import MAINTENANCE_QUEUE
from tests.support.processes import spawn, wait_until

SIDE_KEYS = ("rq:results:{}", "rq:executions:{}", "rq:job:{}:dependents")


@pytest.mark.parametrize("name", SIDE_KEYS)
@pytest.mark.parametrize("kind", ["string", "list"])
def test_worker_moves_jobs_side_keys_aside(
    redis_url: str, redis_client: redis.Redis, name: str, kind: str
) -> None:
    job_id = "clusterer-probe"
    wrong = name.format(job_id)

    def spoil() -> None:
        redis_client.delete(wrong)
        if kind == "string":
            redis_client.set(wrong, "x")
        else:
            redis_client.rpush(wrong, "x")

    spoil()
    env = {"CLUSTERER_REDIS_URL": redis_url}
    finished = queue(MAINTENANCE_QUEUE, redis_client).finished_job_registry
    with spawn(["-m", "workers", "maintenance"], env) as worker:
        worker.wait_for_output("takes jobs of")
        with spawn(["-m", "scheduler"], env):
            wait_until(lambda: len(finished.get_job_ids()) == 3, 10, "the periodic jobs ran")
            for _ in range(3):  # whatever writes it goes on
                ended = redis_client.hget(f"rq:job:{job_id}", "ended_at")
                spoil()
                wait_until(partial(_ended_again, redis_client, job_id, ended), 10)
        output = worker.output()
    assert "Traceback" not in output
    assert output.count("moved to") <= 1
    if "dependents" not in name:  # that key the scheduler deletes
        assert f"moved to {keys.misfit(wrong)}" in output


def _ended_again(client: redis.Redis, job_id: str, before: bytes | str | None) -> bool:
    return client.hget(f"rq:job:{job_id}", "ended_at") not in {before, b"", None}
