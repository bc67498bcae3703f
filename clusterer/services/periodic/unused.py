"""Deletes the data of instances, senders and queues that were not used for a day."""

from __future__ import annotations

import logging

from clusterer import jobs
from clusterer.services.context import Context
from clusterer.store import keys
from clusterer.store.backlog import QueueState
from clusterer.store.forgetting import ForgetStore
from clusterer.store.nodes import find_nodes

log = logging.getLogger(__name__)

UNUSED_S = 86_400
"""Time without use after which the sweep deletes the data."""

EVERY_S = 60.0
"""Interval between two looks of one maintenance worker."""


def run(context: Context, now: float | None = None) -> int:
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
    named: dict[int, list[str]] = {}
    for state in states:
        sets = ((keys.pending, state.pending), (keys.waiting, state.waiting))
        for name, senders in sets:
            for sender in senders:
                named.setdefault(sender, []).append(name(state.queue))
    return store.unused_senders(before_ms, nodes, named)
