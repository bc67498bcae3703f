"""The module timeout job: mutes nodes that were silent for too long, and later ends the mute."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cache

from clusterer.ids import PROTO_BIN
from clusterer.runtime.logs import about_machine_id
from clusterer.services.context import Context
from clusterer.store import ClusterKey, ClusterView
from clusterer.store.format import require_format
from clusterer.store.receipts import Receipts
from clusterer.store.watches import Verdict, Watch

log = logging.getLogger(__name__)


def run(context: Context) -> list[Verdict]:
    """Mute and unmute all due nodes, of every instance and registration; return the verdicts.

    Safe to run at the same time in several processes: each change happens exactly once, with one
    notice to its instance. Raises `StateUnavailable`.
    """
    require_format(context.settings, context.redis)
    receipts = Receipts(context.settings, context.redis)
    done: list[Verdict] = []
    # For names in log lines only: read once per run, however many instances have a verdict.
    view_of = cache(context.nodes.view)
    plan, (counter, now_ms) = context.watch_plan, receipts.counter()
    if not plan.is_current(counter, now_ms):
        plan.replace(receipts.watches(), counter, now_ms)
    watches: Sequence[Watch] = plan.due(now_ms)
    while watches:
        verdicts = receipts.judge(watches)
        for verdict in verdicts:
            plan.looked(verdict.watch, verdict.next_ms)
        found = [verdict for verdict in verdicts if verdict]
        for verdict in found:
            _report(verdict, view_of)
        done += found
        # One call judges a bounded number of nodes: a watch with a verdict may have more.
        watches = [verdict.watch for verdict in found]
    return done


def _report(verdict: Verdict, view_of: Callable[[ClusterKey], ClusterView]) -> None:
    watch = verdict.watch
    view = view_of(ClusterKey(watch.cluster_id, PROTO_BIN))
    nodes = view.nodes.values()
    whose = {"receiver": watch.receiver, "bin_module": watch.module}
    where = f"module {watch.token} of instance {watch.receiver}"
    for machine_id in verdict.muted:
        log.warning(
            "cluster %s node %d: muted for %g s: %s received no packet for more than %g s",
            view.key,
            machine_id,
            watch.timeout_ms / 500,
            where,
            watch.timeout_ms / 1000,
            extra=about_machine_id(machine_id, nodes, **whose),
        )
    for machine_id in verdict.released:
        log.info(
            "cluster %s node %d: no longer muted: %s accepts packets again",
            view.key,
            machine_id,
            where,
            extra=about_machine_id(machine_id, nodes, **whose),
        )
