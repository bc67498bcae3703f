"""Queues of RQ: delivery jobs, which carry no packet, and what is known of a queue's workers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import redis
from rq.utils import current_timestamp
from rq.worker_registration import WORKERS_BY_QUEUE_KEY

from clusterer.endpoint import error_text
from clusterer.errors import StateUnavailable
from clusterer.jobs import keys
from clusterer.jobs.classes import Job, Queue
from clusterer.jobs.wrong_types import is_wrong_type

HEARTBEAT_TTL_S = 60
"""A job without a time limit counts as lost that long after its last heartbeat."""
_LATELY_S = 2
"""RQ counts whole seconds: at least one."""
_DELIVERY: dict[str, Any] = {"timeout": -1, "result_ttl": 60, "failure_ttl": 3600}
"""Times of a delivery job: RQ sets it no limit, as the job bounds its own time and heartbeats."""
_MOST_JOBS = 10_000
"""Most delivery jobs that are deleted; one more each ten minutes waits where no worker runs."""


@contextmanager
def _refusals(what: str) -> Iterator[None]:
    """Raise `StateUnavailable`, "cannot ``what``", if Redis is away or refuses."""
    try:
        yield
    except redis.RedisError as error:
        raise StateUnavailable(f"cannot {what}: {error_text(error)}") from error


def queue(name: str, connection: redis.Redis) -> Queue:
    """Return the queue called ``name``; ``connection`` comes from `clusterer.jobs.connect`."""
    return Queue(name, connection=connection)


def enqueue_delivery(queue_name: str, connection: redis.Redis) -> None:
    """Enqueue a delivery job, which starts one worker of ``queue_name``; one round trip.

    The job goes to the front: all delivery jobs are alike, and junk must not delay them. Raises
    `StateUnavailable`.
    """
    what = f"enqueue a delivery job in queue {queue_name}"
    with _refusals(what), connection.pipeline() as pipe:
        queue(queue_name, connection).enqueue_call(
            keys.DELIVER, args=(queue_name,), at_front=True, pipeline=pipe, **_DELIVERY
        )
        pipe.execute()


def begin_delivery(delivery_queue: Queue) -> Job:
    """Return a delivery job that is in no queue: the caller runs it at once.

    Raises `redis.RedisError`.
    """
    job = delivery_queue.create_job(keys.DELIVER, args=(delivery_queue.name,), **_DELIVERY)
    job.save()
    return cast(Job, job)


def workers_of(name: str, connection: redis.Redis) -> int:
    """Return how many workers RQ knows of a queue, busy or not. Raises `StateUnavailable`."""
    with _refusals(f"count the workers of {name}"):
        return int(connection.scard(WORKERS_BY_QUEUE_KEY % name))


def has_worker(name: str, connection: redis.Redis) -> bool:
    """Whether a worker that is alive takes the jobs of a queue. Raises `StateUnavailable`."""
    with _refusals(f"look for workers of {name}"):
        try:
            workers: Any = connection.smembers(WORKERS_BY_QUEUE_KEY % name)
        except redis.ResponseError as error:
            if is_wrong_type(error):  # no worker can register there
                return False
            raise
        return bool(workers and connection.exists(*workers))


def queued(name: str, connection: redis.Redis) -> int:
    """Return how many jobs wait in a queue, without the started ones. Raises `StateUnavailable`."""
    with _refusals(f"look into queue {name}"):
        return queue(name, connection).count


def taken_lately(name: str, connection: redis.Redis) -> bool:
    """Whether a worker has just taken a job from a queue. Raises `StateUnavailable`."""
    asked = queue(name, connection)
    since = current_timestamp() + HEARTBEAT_TTL_S - _LATELY_S
    with _refusals(f"look into queue {name}"), connection.pipeline(transaction=False) as pipe:
        pipe.llen(asked.intermediate_queue_key)
        pipe.zcount(asked.started_job_registry.key, since, "+inf")
        return any(pipe.execute())


def delete_queue(name: str, connection: redis.Redis) -> None:
    """Delete a queue with its delivery jobs, its registries and its junk.

    Raises `StateUnavailable`.
    """
    found = queue(name, connection)
    names = [
        found.key,
        found.intermediate_queue_key,
        found.started_job_registry.key,
        found.finished_job_registry.key,
        found.failed_job_registry.key,
        WORKERS_BY_QUEUE_KEY % name,
        keys.junk(name),
        keys.junk_totals(name),
        keys.moved_aside(found.key),
    ]
    with _refusals(f"delete queue {name}"):
        jobs = _own_jobs(found.key, name, connection)
        with connection.pipeline(transaction=False) as pipe:
            pipe.unlink(*names, *jobs)
            pipe.srem(found.redis_queues_keys, found.key)
            pipe.execute(raise_on_error=False)  # RQ's set may hold another type


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
