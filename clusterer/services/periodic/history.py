"""The history job: records a sample of each node's traffic, for the charts of the console."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from time import monotonic

from clusterer.services.context import Context
from clusterer.services.status import traffic
from clusterer.services.status.traffic import Flow, SenderHashes
from clusterer.store import ClusterKey, ClusterView, translated
from clusterer.store.badvalues import read_all
from clusterer.store.format import require_format
from clusterer.store.history import LENGTH, HistoryStore, Sample

log = logging.getLogger(__name__)

BUDGET_S = 1.0
"""Longest time for which a job reads counts: other jobs of the worker wait meanwhile."""

PAUSES = 20
"""A job that took a time t leaves the worker to other jobs for t times this number."""

REST_S = 600.0
"""Rest of the worker after a run that was longer than `BUDGET_S`."""

_PAIRS_AT_ONCE = 10_000
"""Most pairs of sender and node whose counts are in memory at once: some 0.2 s of work."""

_NONE = Sample(0, 0, 0, 0, 0)

Sums = dict[tuple[ClusterKey, int], Sample]


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
    until = monotonic() + budget_s
    found: Sums = {}
    machine_ids = {machine_id for view in views for machine_id in view.nodes}
    with translated(context.settings, "read the senders' statistics"):
        senders = iter(traffic.senders(context, machine_ids))
        at_once = max(1, _PAIRS_AT_ONCE // max(1, len(machine_ids)))
        while batch := list(islice(senders, at_once)):
            if monotonic() > until:
                return None
            wanted = [command for sender in batch for command in traffic.commands(sender)]
            replies = iter(read_all(context.redis, wanted))
            hashes = {sender: SenderHashes.of(replies) for sender in batch}
            _add(found, traffic.flows_of(views, hashes))
    return found


def _add(found: Sums, flows: Iterable[Flow]) -> None:
    for flow in flows:
        sent, _failed, skipped, lost = flow.counts
        key = ClusterKey(flow.node.cluster_id, flow.node.protocol)
        to, by = (key, flow.node.machine_id), (key, flow.sender)
        found[to] = found.get(to, _NONE) + Sample(sent, 0, skipped, lost, flow.backlog or 0)
        found[by] = found.get(by, _NONE) + Sample(0, sent, 0, 0, 0)


def _record(context: Context, found: Mapping[tuple[ClusterKey, int], Sample], ttl_s: float) -> None:
    clusters: dict[ClusterKey, dict[int, Sample]] = {}
    for (key, machine_id), sample in found.items():
        clusters.setdefault(key, {})[machine_id] = sample
    store = HistoryStore(context.settings, context.redis)
    for key, samples in clusters.items():
        store.record(key, samples, ttl_s)
