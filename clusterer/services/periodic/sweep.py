"""The sweep job: enqueues missing delivery jobs, and repairs what else was lost."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache

from clusterer import jobs
from clusterer.errors import WrongKey
from clusterer.ids import PROTO_BIN
from clusterer.membership import Node, State
from clusterer.runtime.rounds import Rounds
from clusterer.services.context import Context
from clusterer.services.periodic import unused
from clusterer.services.table import restore
from clusterer.store import ClusterKey
from clusterer.store.backlog import QueueState
from clusterer.store.format import require_format

log = logging.getLogger(__name__)

_rounds = Rounds("sweep")

STARTING_MS = 1000
"""Time that a job may take from RQ's queue to its first act; a wake-up older than that, with no
job in the queue, is lost."""

SETTLE_S = 5.0
"""Time after an outage of Redis, or a step of its clock, before packets are dropped for their age:
delivery workers first record, or send again, what they had delivered and not recorded."""

_SHORTEST_GAP_S, _LONGEST_GAP_S = 2.5, 10.0
"""Limits of the pause between two sweeps that is taken for an outage."""


def run(context: Context) -> int:
    """Look after all delivery queues; return how many wake-ups were needed.

    Raises `StateUnavailable`.
    """
    require_format(context.settings, context.redis)
    restore.run(context)
    context.backlog.end_handovers()
    states = context.backlog.queues()
    woken, may_drop = 0, bool(states) and _may_drop(context, states[0].now_ms / 1000)
    for state in states:
        try:
            if may_drop:
                _drop_old(context, state)
            woken += _look_after(context, state)
        except WrongKey as error:  # of this queue: the others are looked after
            _rounds.failed(error, (state.queue,))
    if context.intervals.due("unused", unused.EVERY_S):
        unused.run(context)
    interval_s = context.settings.resolve_interval
    if interval_s and context.intervals.due("resolve", interval_s):
        from clusterer.services.table import resolve  # noqa: PLC0415 - SQLAlchemy, once it is due

        resolve.start(context)
    return woken


def _may_drop(context: Context, now: float) -> bool:
    """Whether Redis has been there, and its clock steady, for long enough."""
    gap_s = min(max(context.settings.backlog_max_age / 2, _SHORTEST_GAP_S), _LONGEST_GAP_S)
    return context.sweeps.lasted_s(now, gap_s) >= SETTLE_S


def _drop_old(context: Context, state: QueueState) -> None:
    context.backlog.trim({*state.pending, *state.waiting}, context.settings.backlog_max_age)


def _look_after(context: Context, state: QueueState) -> int:
    orphaned = len(state.orphaned) + _end_waiting(context, state)
    return _wake(context, state) if orphaned else 0


def _end_waiting(context: Context, state: QueueState) -> int:
    """Make those senders pending that have something to do again; return how many."""
    resumed = 0
    # Most senders wait for the same few nodes.
    node_of = cache(lambda key, machine_id: context.nodes.read(key, machine_id)[0])
    for sender in state.waiting:
        if _can_go_on(context, sender, node_of):
            context.backlog.resume(state.queue, sender)
            resumed += 1
    return resumed


def _can_go_on(
    context: Context, sender: int, node_of: Callable[[ClusterKey, int], Node | None]
) -> bool:
    """Whether a node that the log waits for is up, or none is left: there is something to do."""
    behind = context.backlog.behind(sender)
    for cluster_id, machine_id, generation in behind:
        node = node_of(ClusterKey(cluster_id, PROTO_BIN), machine_id)
        if node is None or node.generation != generation or node.state is State.UP:
            return True
    return not behind


def _wake(context: Context, state: QueueState) -> int:
    # From far in the future: the clock was put back meanwhile.
    waking = state.enqueued_ms is not None and abs(state.enqueued_ms) > STARTING_MS
    lost = waking and not jobs.queued(state.queue, context.jobs_client)
    if lost and not jobs.taken_lately(state.queue, context.jobs_client):
        log.warning("queue %s: delivery job missing, enqueued again", state.queue)
    if not context.backlog.call_worker(state.queue, lost=lost):
        return 0
    jobs.enqueue_delivery(state.queue, context.jobs_client)
    return 1
