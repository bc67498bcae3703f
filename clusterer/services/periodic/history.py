"""The history job: records a sample of each node's traffic, for the charts of the console."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from time import monotonic

from clusterer.membership import NodeKey
from clusterer.services.context import Context
from clusterer.services.status import sums as traffic_sums
from clusterer.store import ClusterKey, ClusterView, translated
from clusterer.store.format import require_format
from clusterer.store.history import LENGTH, HistoryStore, Sample

log = logging.getLogger(__name__)

BUDGET_S = 1.0
"""Longest time for which a job reads counts: other jobs of the worker wait meanwhile."""

PAUSES = 20
"""A job that took a time t leaves the worker to other jobs for t times this number."""

REST_S = 60.0
"""Rest of the worker after a run that was longer than `BUDGET_S`."""

_NONE = Sample(0, 0, 0, 0, 0)

Sums = dict[NodeKey, Sample]


def run(context: Context) -> int:
    """Record a sample of each node with traffic; return their number.

    Without `history_interval` the job does nothing, and also while it rests. Raises
    `StateUnavailable`.
    """
    interval_s = context.settings.history_interval
    if not interval_s or not context.histories.may_run():
        return 0
    require_format(context.settings, context.redis)
    with context.histories.run(PAUSES):
        context.directory.refresh()
        views = tuple(context.directory.snapshot.values())
        found = sums(context, views, BUDGET_S)
        if found is None:
            log.warning(
                "history: no sample: reading the counts takes more than %g s; retrying in %g s; "
                "history_interval = 0 ends this",
                BUDGET_S,
                REST_S,
            )
            context.histories.rest(REST_S)
            return 0
        _record(context, found, LENGTH * max(interval_s, 1.0) * 2)
    return len(found)


def sums(context: Context, views: Sequence[ClusterView], budget_s: float) -> Sums | None:
    """Return the sample of each node with traffic; None if that takes longer than ``budget_s``.

    Raises `StateUnavailable`.
    """
    until_s = monotonic() + budget_s
    try:
        with translated(context.settings, "read the senders' statistics"):
            # The ages of packets, and what only the logs tell, are no part of a sample.
            summed = traffic_sums.read(context, views, (), 0.0, 0, until_s=until_s)
    except TimeoutError:
        return None
    found: Sums = {}
    for to in summed.to_nodes:
        found[to.node_key] = Sample(to.sent, 0, to.skipped, to.lost, 0)
    for pair in summed.waiting:
        found[pair.node.key] += Sample(0, 0, 0, 0, pair.backlog or 0)
    for sender, sent in summed.sent_by.items():
        found[sender] = found.get(sender, _NONE) + Sample(0, sent, 0, 0, 0)
    return found


def _record(context: Context, found: Mapping[NodeKey, Sample], ttl_s: float) -> None:
    clusters: dict[ClusterKey, dict[int, Sample]] = {}
    for (key, machine_id), sample in found.items():
        clusters.setdefault(key, {})[machine_id] = sample
    store = HistoryStore(context.settings, context.redis)
    for key, samples in clusters.items():
        store.record(key, samples, ttl_s)
