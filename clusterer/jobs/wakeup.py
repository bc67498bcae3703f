"""The wake-up of delivery workers: one RQ job without a payload."""

from __future__ import annotations

from typing import cast

import redis
from rq.utils import current_timestamp
from rq.worker_registration import WORKERS_BY_QUEUE_KEY

from clusterer.endpoint import said
from clusterer.errors import StateUnavailable
from clusterer.jobs.classes import Job, Queue
from clusterer.jobs.keys import DELIVER

RESULT_TTL_S = 60
FAILURE_TTL_S = 3600
HEARTBEAT_TTL_S = 60
"""A job without a time limit counts as lost that long after its last heartbeat."""
_LATELY_S = 2
"""RQ counts whole seconds: at least one."""
NO_TIMEOUT = -1


def queue(name: str, connection: redis.Redis) -> Queue:
    """Return the queue called ``name``; ``connection`` comes from `clusterer.jobs.connect`."""
    return Queue(name, connection=connection)


def enqueue_delivery(queue_name: str, connection: redis.Redis) -> None:
    """Wake one delivery worker of ``queue_name``; one round trip.

    The job bounds its own time and heartbeats while it runs, so RQ sets it no limit. It goes to
    the front: all wake-ups are alike, and none is to wait behind what does not belong there.
    Raises `StateUnavailable` when Redis cannot be reached, or refuses.
    """
    try:
        with connection.pipeline() as pipe:
            queue(queue_name, connection).enqueue_call(
                DELIVER,
                args=(queue_name,),
                timeout=NO_TIMEOUT,
                result_ttl=RESULT_TTL_S,
                failure_ttl=FAILURE_TTL_S,
                at_front=True,
                pipeline=pipe,
            )
            pipe.execute()
    except redis.RedisError as error:
        raise StateUnavailable(
            f"cannot enqueue a delivery job in queue {queue_name}: {said(error)}"
        ) from error


def begin_delivery(delivery_queue: Queue) -> Job:
    """Return a delivery job that is in no queue: the caller runs it at once.

    Raises `redis.RedisError`.
    """
    job = delivery_queue.create_job(
        DELIVER,
        args=(delivery_queue.name,),
        timeout=NO_TIMEOUT,
        result_ttl=RESULT_TTL_S,
        failure_ttl=FAILURE_TTL_S,
    )
    job.save()
    return cast(Job, job)


def workers_of(name: str, connection: redis.Redis) -> int:
    """Return how many workers RQ knows of the queue called ``name``, busy or not.

    Raises `StateUnavailable` when Redis cannot be reached, or refuses.
    """
    try:
        return int(connection.scard(WORKERS_BY_QUEUE_KEY % name))
    except redis.RedisError as error:
        raise StateUnavailable(f"cannot count the workers of {name}: {said(error)}") from error


def queued(name: str, connection: redis.Redis) -> int:
    """Return how many jobs wait in the queue called ``name``; started ones do not count.

    Raises `StateUnavailable` when Redis cannot be reached, or refuses.
    """
    try:
        return queue(name, connection).count
    except redis.RedisError as error:
        raise StateUnavailable(f"cannot look into queue {name}: {said(error)}") from error


def taken_lately(name: str, connection: redis.Redis) -> bool:
    """Whether a worker has just taken a job from the queue called ``name``.

    Raises `StateUnavailable` when Redis cannot be reached, or refuses.
    """
    asked = queue(name, connection)
    since = current_timestamp() + HEARTBEAT_TTL_S - _LATELY_S
    try:
        with connection.pipeline(transaction=False) as pipe:
            pipe.llen(asked.intermediate_queue_key)
            pipe.zcount(asked.started_job_registry.key, since, "+inf")
            return any(pipe.execute())
    except redis.RedisError as error:
        raise StateUnavailable(f"cannot look into queue {name}: {said(error)}") from error
