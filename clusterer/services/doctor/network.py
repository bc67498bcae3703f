"""The checks of addresses, and of the connections from here and from the workers to every node."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import redis
from rq.results import Result

from clusterer import jobs
from clusterer.endpoint import error_at
from clusterer.errors import StateUnavailable
from clusterer.ids import PROTO_BIN
from clusterer.jobs import Job
from clusterer.jobs.fleet import Fleet, QueueInfo
from clusterer.jobs.keys import REACH
from clusterer.membership import ADVICE, Condition, Node, address_warnings
from clusterer.membership.views import all_nodes
from clusterer.runtime.routes import is_local
from clusterer.services.context import Context
from clusterer.services.doctor.finding import Finding, bounded, error, ok, skipped, warn
from clusterer.services.periodic import reach
from clusterer.settings import MAINTENANCE_QUEUE

ADDRESSES = "addresses"
OWN_ROW = "own row"
FROM_HERE = "nodes from here"
CHECKS = (ADDRESSES, OWN_ROW, FROM_HERE)

FROM_WORKERS = "nodes from workers"

_NAMED = 10

ANSWER_S = 4.0
"""Longest wait for an answer of a worker."""
RESULT_TTL_S = 30
_POLL_S = 0.05


def check(context: Context) -> Iterator[Finding]:
    """Check the own row and try to connect to all nodes."""
    nodes = all_nodes(context.nodes.views().values())
    yield from _together(nodes)
    yield from _own(context, nodes)
    yield from judged(FROM_HERE, "", reach.run(context), nodes)


def _together(nodes: list[Node]) -> Iterator[Finding]:
    found = address_warnings(nodes)
    if not found:
        yield ok(ADDRESSES, "each node has its own address, which other hosts can reach")
    warnings = [warn(ADDRESSES, warning.text, ADVICE) for warning in found]
    yield from bounded(warnings, _NAMED, ADVICE)


def _own(context: Context, nodes: list[Node]) -> Iterator[Finding]:
    server_id = context.settings.server_id
    if not server_id:
        yield skipped(OWN_ROW, "server_id is not set: no own row to check")
        return
    own = [node for node in nodes if node.machine_id == server_id and node.protocol == PROTO_BIN]
    if not own:
        yield error(
            OWN_ROW,
            f"instance {server_id} has no row in any bin cluster, and neither listens nor sends",
            "add its row to the table and run `clusterer reload`, or correct server_id",
        )
    for node in own:
        yield _own_row(node, anywhere=context.settings.allow_foreign_source)


def _own_row(node: Node, *, anywhere: bool) -> Finding:
    text = f"cluster {node.cluster_id} node {node.machine_id} ({node.url})"
    if not is_local(node.host):
        text += f": {node.host} is not an address of this host"
        if anywhere:
            return warn(OWN_ROW, text, "allow_foreign_source is set: peers must not check sources")
        return error(
            OWN_ROW,
            text,
            "run the instance on the host with this address, or correct the row's url",
        )
    if node.condition is not Condition.UP:
        return warn(
            OWN_ROW,
            f"{text} is {node.condition.value}: other nodes do not send to it",
            f"see `clusterer events --node {node.machine_id}`",
        )
    return ok(OWN_ROW, f"{text} is local and up")


def judged(
    check_name: str, whence: str, answer: Mapping[str, Any], nodes: list[Node]
) -> Iterator[Finding]:
    """Yield the findings of an answer of `reach`: one if all nodes were reached, else one each."""
    errors, tried = answer["errors"], answer["tried"]
    known = {reach.name_of(node): node for node in nodes}
    reached = f"{tried - len(errors)} of {tried} BIN ports reached{whence}"
    if not errors:
        yield ok(check_name, reached)
        return
    found = [
        _unreached(check_name, whence, place, known.get(place), why)
        for place, why in sorted(errors.items())
    ]
    advice = f"{reached}; check the network first: so many nodes rarely fail at once"
    yield from bounded(found, _NAMED, advice)


def _unreached(check_name: str, whence: str, place: str, node: Node | None, why: str) -> Finding:
    url = f" ({node.url})" if node else ""
    cluster_id, _, machine_id = place.partition("/")
    which = f"{cluster_id} {machine_id}"
    return error(
        check_name,
        f"cluster {cluster_id} node {machine_id}{url} not reached{whence}: {why}",
        f"start `clusterer node --server-id {machine_id}` (or OpenSIPS) on the node's host; check "
        "the firewalls between; if the node is away for long: "
        f"`clusterer set-status {which} 0 {PROTO_BIN}`",
    )


def check_from_workers(context: Context, fleet: Fleet) -> Iterator[Finding]:
    """Ask a worker of each queue that sends or probes. Raises `StateUnavailable`."""
    queues = [queue for queue in (*fleet.delivery, fleet.maintenance) if queue.workers]
    if not queues:
        yield skipped(FROM_WORKERS, "needs a worker")
        return
    if fleet.suspension is not None:
        yield skipped(FROM_WORKERS, "RQ is suspended")
        return
    nodes = all_nodes(context.nodes.views().values())
    try:
        asked = {queue: _ask(context, queue) for queue in queues if not _delivers(queue)}
        answers = _await(asked)
    except redis.RedisError as error:
        text = error_at(context.settings, error)
        raise StateUnavailable(f"cannot ask the workers: {text}") from error
    for queue in queues:
        result = answers.get(queue)
        if result is not None and result.type is Result.Type.SUCCESSFUL:
            answer: dict[str, Any] = result.return_value or {}
            yield from judged(
                FROM_WORKERS, f" from {queue.name} on {answer['host']}", answer, nodes
            )
        else:
            yield _unanswered(queue)


def _delivers(queue: QueueInfo) -> bool:
    """Whether all workers of the queue run a delivery job now, which may take a minute.

    Maintenance jobs are short: a maintenance worker that does not answer hangs, or is overloaded.
    """
    return queue.name != MAINTENANCE_QUEUE and all(worker.busy for worker in queue.workers)


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
            FROM_WORKERS,
            f"{queue.name} not asked: its workers deliver; "
            "`clusterer events` shows the nodes that were not reached",
        )
    if queue.strangers:
        return skipped(
            FROM_WORKERS, f"{queue.name}: a worker that is not clusterer's takes its jobs"
        )
    return warn(
        FROM_WORKERS,
        f"no worker of {queue.name} answered within {ANSWER_S:g} s",
        "read the worker's log; if the worker hangs, start it again",
    )
