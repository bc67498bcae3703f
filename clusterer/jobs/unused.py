"""Delivery queues that no worker takes: RQ's keys of one, and their deletion."""

from __future__ import annotations

from typing import Any

import redis
from rq.worker_registration import WORKERS_BY_QUEUE_KEY

from clusterer.endpoint import said
from clusterer.errors import StateUnavailable
from clusterer.jobs import keys
from clusterer.jobs.misfits import is_wrong_type
from clusterer.jobs.wakeup import queue

_MOST_JOBS = 10_000
"""Wake-ups of one queue that are deleted: one every ten minutes is left where no worker runs."""


def has_worker(name: str, connection: redis.Redis) -> bool:
    """Whether a worker that is alive takes the jobs of the queue called ``name``.

    Raises `StateUnavailable` when Redis cannot be reached, or refuses.
    """
    try:
        workers: Any = connection.smembers(WORKERS_BY_QUEUE_KEY % name)
        return bool(workers and connection.exists(*workers))
    except redis.RedisError as error:
        if is_wrong_type(error):  # no worker can register there
            return False
        raise StateUnavailable(f"cannot look for workers of {name}: {said(error)}") from error


def delete_queue(name: str, connection: redis.Redis) -> None:
    """Delete a queue with its jobs, which only wake workers, its registries and its junk.

    Raises `StateUnavailable` when Redis cannot be reached, or refuses.
    """
    found = queue(name, connection)
    registries = (
        found.started_job_registry,
        found.finished_job_registry,
        found.failed_job_registry,
    )
    names = [found.key, found.intermediate_queue_key, WORKERS_BY_QUEUE_KEY % name]
    names += [registry.key for registry in registries]
    names += [keys.junk(name), keys.junk_totals(name), keys.misfit(found.key)]
    try:
        jobs = _own_jobs(found.key, name, connection)
        with connection.pipeline(transaction=False) as pipe:
            pipe.unlink(*names, *jobs)
            pipe.srem(found.redis_queues_keys, found.key)
            pipe.execute(raise_on_error=False)  # RQ's set may hold another type
    except redis.RedisError as error:
        raise StateUnavailable(f"cannot delete queue {name}: {said(error)}") from error


def _own_jobs(key: str, name: str, connection: redis.Redis) -> list[bytes]:
    """Return the keys of the queue's jobs; not of what another queue has as well."""
    if connection.type(key) != b"list":
        return []
    job_ids: Any = connection.lrange(key, 0, _MOST_JOBS - 1)
    waiting = [b"rq:job:" + job_id for job_id in job_ids]
    with connection.pipeline(transaction=False) as pipe:
        for job in waiting:
            pipe.hget(job, "origin")
        origins = pipe.execute(raise_on_error=False)
    own = name.encode()
    return [job for job, origin in zip(waiting, origins, strict=True) if origin == own]
