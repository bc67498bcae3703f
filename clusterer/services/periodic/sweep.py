"""The sweep job: enqueues missing delivery jobs, trims logs, and ends hand-overs of dead workers.

The job loads the table into a Redis without nodes. At longer intervals it deletes unused data and
resolves names.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from time import monotonic

from clusterer import jobs
from clusterer.errors import ClustererError, StateUnavailable, WrongKey
from clusterer.ids import PROTO_BIN
from clusterer.membership import Node
from clusterer.membership.paths import gate
from clusterer.runtime.logs import LimitedLog
from clusterer.runtime.rounds import Rounds
from clusterer.services.context import Context
from clusterer.store import ClusterKey
from clusterer.store.backlog import QueueState
from clusterer.store.forgetting import ForgetStore
from clusterer.store.format import require_format
from clusterer.store.nodes import find_nodes
from clusterer.store.paths import Records
from clusterer.store.reloads import ReloadStore

log = logging.getLogger(__name__)

_rounds = Rounds("sweep")
_limited = LimitedLog(log, 300.0)

STARTING_MS = 1000
"""Time that a job may take from RQ's queue to its start. The delivery job is lost if the enqueued
flag is older than that and the queue has no job."""

SETTLE_S = 5.0
"""Time after an outage of Redis, or a step of its clock, before the sweep trims old packets:
delivery workers first record their deliveries, or send the packets again."""

_SHORTEST_GAP_S, _LONGEST_GAP_S = 2.5, 10.0
"""Limits of the pause between two sweeps that counts as an outage."""

RESTORE_AGAIN_S = 10
"""Pause before another attempt after the table was not loaded."""

UNUSED_S = 86_400
"""Time without use after which the sweep deletes the data of a queue, an instance or a sender."""

UNUSED_EVERY_S = 60.0
"""Interval at which one maintenance worker looks for unused data."""


def run(context: Context) -> int:
    """Check all delivery queues; return the number of delivery jobs that were missing.

    Raises `StateUnavailable`.
    """
    require_format(context.settings, context.redis)
    restore(context)
    context.backlog.end_handovers()
    states = context.backlog.queues()
    enqueued, may_drop = 0, bool(states) and _may_drop(context, states[0].now_ms / 1000)
    for state in states:
        try:
            if may_drop:
                senders = {*state.pending, *state.waiting}
                context.backlog.trim(senders, context.settings.backlog_max_age)
            enqueued += _check(context, state)
        except WrongKey as error:  # of this queue: the sweep checks the other queues
            _rounds.failed(error, (state.queue,))
    if context.intervals.due("unused", UNUSED_EVERY_S):
        delete_unused(context)
    interval_s = context.settings.resolve_interval
    if interval_s and context.intervals.due("resolve", interval_s):
        from clusterer.services.table import resolve  # noqa: PLC0415 - SQLAlchemy, once it is due

        resolve.start(context)
    return enqueued


def _may_drop(context: Context, now: float) -> bool:
    """Whether Redis has answered, and its clock has not jumped, for long enough."""
    gap_s = min(max(context.settings.backlog_max_age / 2, _SHORTEST_GAP_S), _LONGEST_GAP_S)
    return context.sweeps.lasted_s(now, gap_s) >= SETTLE_S


def _check(context: Context, state: QueueState) -> int:
    orphaned = len(state.orphaned) + _end_waiting(context, state)
    return _enqueue(context, state) if orphaned else 0


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
        if gate(node, records.get(node.destination), records.now_ms):
            return True
    return not behind


def _enqueue(context: Context, state: QueueState) -> int:
    """Enqueue a delivery job unless a job is queued or has just been taken; return their number."""
    # A flag from far in the future: Redis's clock went back meanwhile.
    flagged = state.enqueued_ms is not None and abs(state.enqueued_ms) > STARTING_MS
    lost = flagged and not jobs.queued(state.queue, context.jobs_client)
    if lost and not jobs.taken_lately(state.queue, context.jobs_client):
        log.warning("queue %s: delivery job missing, enqueued again", state.queue)
    if not context.backlog.call_worker(state.queue, lost=lost):
        return 0
    jobs.enqueue_delivery(state.queue, context.jobs_client)
    return 1


def restore(context: Context) -> bool:
    """Load the table if Redis has no node and no trace of a reload; return whether it was loaded.

    With ``redis_url`` and without ``db_url`` `restore` does nothing: the SQLite file of the data
    directory may belong to another Redis. Safe to run in several processes. Raises
    `StateUnavailable`.
    """
    settings = context.settings
    if settings.redis_url and not settings.db_url:
        return False
    if not ReloadStore(settings, context.redis).claim_restore(RESTORE_AGAIN_S):
        return False
    from clusterer.services.table import reload  # noqa: PLC0415 - SQLAlchemy, 0.2 s and 15 MB

    try:
        report = reload.run(context, by="restore")
    except StateUnavailable:
        raise
    except ClustererError as error:
        _limited.warning(
            "table", monotonic(), "Redis: no nodes, and the table was not loaded: %s", error
        )
        return False
    log.warning("Redis: had no nodes; loaded %d from %s", report.loaded, report.database)
    return True


def delete_unused(context: Context, now: float | None = None) -> int:
    """Delete the data of unused queues, instances and senders; return their number.

    A queue is unused without a sender and a worker, if no sender became pending for a day. An
    instance is unused if it was not alive for a day; an instance that returns registers its modules
    again in any case. A sender is unused without a row in any cluster, with an empty log, and
    without a packet for a day. One look takes at most 1,000 of each. ``now``: UNIX time in seconds,
    of Redis (default: now). Raises `StateUnavailable`.
    """
    store = ForgetStore(context.settings, context.redis)
    before_ms = int(((context.nodes.now() if now is None else now) - UNUSED_S) * 1000)
    states = context.backlog.queues()
    queues = [state.queue for state in states if _is_unused(context, store, state, before_ms)]
    instances = store.unused_instances(before_ms)
    senders = _senders(context, store, states, before_ms)
    for what, found in (("queue", queues), ("instance", instances), ("sender", senders)):
        if found:
            listed = ", ".join(map(str, found[:10])) + (", …" if len(found) > 10 else "")
            log.info("%s %s: deleted from Redis: not used for a day", what, listed)
    return len(queues) + len(instances) + len(senders)


def _is_unused(context: Context, store: ForgetStore, state: QueueState, before_ms: int) -> bool:
    """Delete a queue if it is unused; return whether the queue was deleted."""
    if state.pending or state.waiting or jobs.has_worker(state.queue, context.jobs_client):
        return False
    if not store.unused_queue(state.queue, before_ms):
        return False
    jobs.delete_queue(state.queue, context.jobs_client)
    return True


def _senders(
    context: Context, store: ForgetStore, states: list[QueueState], before_ms: int
) -> list[int]:
    clusters = context.nodes.clusters()
    if not clusters:  # Redis has lost the table: the senders with a row are not known
        return []
    nodes = {i for key in clusters for i in find_nodes(context.redis, key)}
    return store.unused_senders(before_ms, nodes, states)
