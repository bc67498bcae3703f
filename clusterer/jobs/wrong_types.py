"""RQ's keys of the wrong type: moved aside, because no worker of the queue can go on with them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from time import monotonic

import redis
from rq.executions import ExecutionRegistry
from rq.job import Job as RqJob
from rq.queue import Queue as RqQueue
from rq.results import Result
from rq.worker_registration import REDIS_WORKER_KEYS, WORKERS_BY_QUEUE_KEY

from clusterer.jobs import keys
from clusterer.jobs.junk import KEPT_S
from clusterer.runtime.logs import LimitedLog

LOG_INTERVAL_S = 60.0
"""Between two log lines about the same key."""

_limited = LimitedLog(logging.getLogger(__name__), LOG_INTERVAL_S)


def is_wrong_type(error: Exception) -> bool:
    """Whether Redis says that a key is of another type than a command is for."""
    return isinstance(error, redis.ResponseError) and "WRONGTYPE" in str(error)


def move_aside(queue: RqQueue) -> int:
    """Rename the keys of ``queue`` that are of the wrong type, log each, return how many.

    RQ's sets of all queues and workers are among them: of another type they serve no application.
    """
    return move_keys_aside(queue.connection, _types(queue), f"queue {queue.name}")


def move_job_aside(job: RqJob, queue: RqQueue) -> int:
    """Rename the keys of the wrong type in which RQ records how ``job``, about to run, has ended.

    RQ would log a traceback for each job. The keys of ``queue`` are among them.
    """
    expected = _types(queue) | {
        Result.get_key(job.id): "stream",  # type: ignore[no-untyped-call]
        ExecutionRegistry.key_template.format(job.id): "zset",
        job.dependents_key: "set",
    }
    return move_keys_aside(job.connection, expected, f"job {job.id}")


def move_keys_aside(client: redis.Redis, expected: Mapping[str, str], component: str) -> int:
    """Rename those keys that are not of the ``expected`` type, as `move_aside` does."""
    with client.pipeline(transaction=False) as pipe:
        for key in expected:
            pipe.type(key)
        found = [kind.decode() for kind in pipe.execute()]
    wrong = [
        (key, kind)
        for (key, right), kind in zip(expected.items(), found, strict=True)
        if kind not in (right, "none")
    ]
    for key, kind in wrong:
        with suppress(redis.ResponseError):  # another process was faster
            client.rename(key, keys.moved_aside(key))
            client.expire(keys.moved_aside(key), KEPT_S)
            _limited.warning(
                key,
                monotonic(),
                "%s: key %s holds a %s, not a %s: moved to %s",
                *(component, key, kind, expected[key], keys.moved_aside(key)),
            )
    return len(wrong)


def _types(queue: RqQueue) -> dict[str, str]:
    return {
        queue.key: "list",
        queue.intermediate_queue_key: "list",
        queue.started_job_registry.key: "zset",
        queue.finished_job_registry.key: "zset",
        queue.failed_job_registry.key: "zset",
        WORKERS_BY_QUEUE_KEY % queue.name: "set",
        REDIS_WORKER_KEYS: "set",
        queue.redis_queues_keys: "set",
    }
