"""The wake-up of delivery workers: one RQ job without a payload."""

from __future__ import annotations

import redis

from clusterer.endpoint import said
from clusterer.errors import StateUnavailable
from clusterer.jobs.classes import DELIVER, Queue

RESULT_TTL_S = 60
FAILURE_TTL_S = 3600
NO_TIMEOUT = -1


def queue(name: str, connection: redis.Redis) -> Queue:
    """Return the queue called ``name``; ``connection`` comes from `clusterer.jobs.connect`."""
    return Queue(name, connection=connection)


def enqueue_delivery(queue_name: str, connection: redis.Redis) -> None:
    """Wake one delivery worker of ``queue_name``; one round trip.

    The job bounds its own time and heartbeats while it runs, so RQ sets it no limit.
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
                pipeline=pipe,
            )
            pipe.execute()
    except redis.RedisError as error:
        raise StateUnavailable(
            f"cannot wake a worker of queue {queue_name}: {said(error)}"
        ) from error


def queued(name: str, connection: redis.Redis) -> int:
    """Return how many jobs wait in the queue called ``name``; started ones do not count.

    Raises `StateUnavailable` when Redis cannot be reached, or refuses.
    """
    try:
        return queue(name, connection).count
    except redis.RedisError as error:
        raise StateUnavailable(f"cannot look into queue {name}: {said(error)}") from error
