"""The sweep job: enqueues missing delivery jobs, trims logs, and ends hand-overs of dead workers.

At longer intervals the job deletes unused data and resolves names.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache

from clusterer import jobs
from clusterer.errors import WrongKey
from clusterer.ids import PROTO_BIN
from clusterer.membership import Node
from clusterer.membership.paths import gate
from clusterer.runtime.rounds import Rounds
from clusterer.services.context import Context
from clusterer.services.periodic import unused
from clusterer.services.table import restore
from clusterer.store import ClusterKey
from clusterer.store.backlog import QueueState
from clusterer.store.destinations import field_of
from clusterer.store.format import require_format
from clusterer.store.paths import Records

log = logging.getLogger(__name__)

_rounds = Rounds("sweep")

STARTING_MS = 1000
"""Time that a job may take from RQ's queue to its start. The delivery job is lost if the enqueued
flag is older than that and the queue has no job."""

SETTLE_S = 5.0
"""Time after an outage of Redis, or a step of its clock, before the sweep trims old packets:
delivery workers first record their deliveries, or send the packets again."""

_SHORTEST_GAP_S, _LONGEST_GAP_S = 2.5, 10.0
"""Limits of the pause between two sweeps that counts as an outage."""


def run(context: Context) -> int:
    """Check all delivery queues; return the number of delivery jobs that were missing.

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
        except WrongKey as error:  # of this queue: the sweep checks the other queues
            _rounds.failed(error, (state.queue,))
    if context.intervals.due("unused", unused.EVERY_S):
        unused.run(context)
    interval_s = context.settings.resolve_interval
    if interval_s and context.intervals.due("resolve", interval_s):
        from clusterer.services.table import resolve  # noqa: PLC0415 - SQLAlchemy, once it is due

        resolve.start(context)
    return woken


def _may_drop(context: Context, now: float) -> bool:
    """Whether Redis has answered, and its clock has not jumped, for long enough."""
    gap_s = min(max(context.settings.backlog_max_age / 2, _SHORTEST_GAP_S), _LONGEST_GAP_S)
    return context.sweeps.lasted_s(now, gap_s) >= SETTLE_S


def _drop_old(context: Context, state: QueueState) -> None:
    context.backlog.trim({*state.pending, *state.waiting}, context.settings.backlog_max_age)


def _look_after(context: Context, state: QueueState) -> int:
    orphaned = len(state.orphaned) + _end_waiting(context, state)
    return _wake(context, state) if orphaned else 0


def _end_waiting(context: Context, state: QueueState) -> int:
    """Make waiting senders pending whose packets can be delivered again; return their number."""
    resumed = 0
    if not state.waiting:
        return 0
    # Most senders wait for the same few nodes.
    node_of = cache(lambda key, machine_id: context.nodes.read(key, machine_id)[0])
    records = context.paths.all_records(sorted(state.waiting))
    for sender in state.waiting:
        if _can_go_on(context, sender, node_of, records[sender]):
            context.backlog.resume(state.queue, sender)
            resumed += 1
    return resumed


def _can_go_on(
    context: Context,
    sender: int,
    node_of: Callable[[ClusterKey, int], Node | None],
    records: Records,
) -> bool:
    """Whether a gate is open for which the log waits, or no node is left: something is to do."""
    behind = context.backlog.behind(sender)
    for cluster_id, machine_id, generation in behind:
        node = node_of(ClusterKey(cluster_id, PROTO_BIN), machine_id)
        if node is None or node.generation != generation:
            return True
        if gate(node, records.get(field_of(node)), records.now_ms):
            return True
    return not behind


def _wake(context: Context, state: QueueState) -> int:
    # A flag from far in the future: Redis's clock went back meanwhile.
    waking = state.enqueued_ms is not None and abs(state.enqueued_ms) > STARTING_MS
    lost = waking and not jobs.queued(state.queue, context.jobs_client)
    if lost and not jobs.taken_lately(state.queue, context.jobs_client):
        log.warning("queue %s: delivery job missing, enqueued again", state.queue)
    if not context.backlog.call_worker(state.queue, lost=lost):
        return 0
    jobs.enqueue_delivery(state.queue, context.jobs_client)
    return 1
