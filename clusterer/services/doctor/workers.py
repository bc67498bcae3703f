"""The check of every node's BIN port from the workers: one job per queue asks a worker."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import redis
from rq.results import Result

from clusterer import jobs
from clusterer.endpoint import trouble
from clusterer.errors import StateUnavailable
from clusterer.jobs import Job
from clusterer.jobs.keys import REACH
from clusterer.services.context import Context
from clusterer.services.doctor.finding import Finding, ok, skipped, warn
from clusterer.services.doctor.network import judged
from clusterer.services.status.fleet import Fleet, QueueInfo

CHECK = "nodes from workers"

ANSWER_S = 4.0
"""Longest wait for an answer."""
RESULT_TTL_S = 30
_POLL_S = 0.05


def check(context: Context, fleet: Fleet) -> Iterator[Finding]:
    """Ask a worker of each queue that sends or probes. Raises `StateUnavailable`."""
    queues = [queue for queue in (*fleet.delivery, fleet.maintenance) if queue.workers]
    if not queues:
        yield unknown("needs a worker")
        return
    if fleet.suspension is not None:
        yield unknown("RQ is suspended")
        return
    nodes = [node for view in context.nodes.views().values() for node in view.nodes.values()]
    try:
        asked = {queue: _ask(context, queue) for queue in queues if not _delivers(queue)}
        answers = _await(asked)
    except redis.RedisError as error:
        text = trouble(context.settings, error)
        raise StateUnavailable(f"cannot ask the workers: {text}") from error
    for queue in queues:
        result = answers.get(queue)
        if result is not None and result.type is Result.Type.SUCCESSFUL:
            answer: dict[str, Any] = result.return_value or {}
            yield from judged(CHECK, f" from {queue.name} on {answer['host']}", answer, nodes)
        else:
            yield _unanswered(queue)


def unknown(why: str = "needs Redis") -> Finding:
    """Return the finding of a check that was not possible."""
    return skipped(CHECK, why)


def _delivers(queue: QueueInfo) -> bool:
    """Whether all workers of the queue run a job now; a delivery job may take a minute."""
    return all(worker.busy for worker in queue.workers)


def _ask(context: Context, queue: QueueInfo) -> Job:
    made = jobs.queue(queue.name, context.jobs_client).enqueue_call(
        REACH, timeout=10, result_ttl=RESULT_TTL_S, failure_ttl=RESULT_TTL_S, at_front=True
    )
    assert isinstance(made, Job)  # noqa: S101 - the queue makes no other
    return made


def _await(asked: dict[QueueInfo, Job]) -> dict[QueueInfo, Result]:
    """Return the answers that came in time; delete the jobs that no worker took."""
    answers: dict[QueueInfo, Result] = {}
    deadline = time.monotonic() + ANSWER_S
    while len(answers) < len(asked) and time.monotonic() < deadline:
        for queue, job in asked.items():
            if queue not in answers and (result := job.latest_result()) is not None:
                answers[queue] = result
        time.sleep(_POLL_S)
    for queue, job in asked.items():
        if queue not in answers:
            with suppress(redis.ResponseError):
                job.delete()
    return answers


def _unanswered(queue: QueueInfo) -> Finding:
    if _delivers(queue):
        return ok(
            CHECK,
            f"{queue.name} not asked: its workers deliver; "
            "`clusterer events` shows the nodes that were not reached",
        )
    if queue.strangers:
        return skipped(CHECK, f"{queue.name}: a worker that is not clusterer's takes its jobs")
    return warn(
        CHECK,
        f"no worker of {queue.name} answered within {ANSWER_S:g} s",
        "read the worker's log; if the worker hangs, start it again",
    )
