"""Suspicions in the probe job: opens rounds, concludes what probers left, sweeps the probers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from clusterer.ids import PROTO_BIN
from clusterer.membership import Node
from clusterer.membership.suspicions import WINDOW_MS, Kind, Suspicion
from clusterer.membership.views import ClusterKey
from clusterer.prober.verdicts import Verdicts
from clusterer.runtime.routes import is_local
from clusterer.services.context import Context
from clusterer.store.suspicions import Opened

OVERDUE_MS = WINDOW_MS + 250
"""The probers that were asked have concluded a suspicion by then."""

SETTLE_S = 3.0
"""Time after an outage of Redis before probers are removed that have not come back."""

_GAP_S = 2.5
"""A longer pause between two probe jobs is taken for an outage."""

BY = "probe"

_REASON = "no host reaches it"


def ask(context: Context, nodes: Iterable[Node]) -> set[tuple[ClusterKey, int]]:
    """Open a round for each node that a prober on another host can check; return which."""
    asked: set[tuple[ClusterKey, int]] = set()
    present: dict[ClusterKey, Collection[int]] = {}
    for node in nodes:
        key = ClusterKey(node.cluster_id, node.protocol)
        if key not in present:
            present[key] = context.probers.present(key)
            if present[key]:
                context.directory.refresh()
        if not present[key] or _all_here(context, key, node, present[key]):
            continue
        views = context.directory.snapshot
        opened = context.suspicions.open(node, Kind.PROBE, asking=None, reason=_REASON, views=views)
        if opened is not Opened.ALONE:
            asked.add((key, node.machine_id))
    return asked


def _all_here(context: Context, key: ClusterKey, node: Node, probers: Collection[int]) -> bool:
    """Whether a node and all probers are on this host, whatever their addresses are."""
    if not is_local(node.host):
        return False
    view = context.directory.snapshot.get(key)
    rows = [view.nodes.get(prober) if view else None for prober in probers]
    return all(row is not None and is_local(row.host) for row in rows)


def conclude(context: Context, clusters: Iterable[ClusterKey]) -> None:
    """Conclude the suspicions that the asked probers have not, and sweep the probers."""
    wanted = [key for key in clusters if key.protocol == PROTO_BIN]
    found = {key: each for key, each in context.suspicions.all(wanted).items() if each}
    if found:
        _conclude(context, found)
    # After an outage of Redis all heartbeats are old: the probers have time to be back.
    steady_s = context.probes.lasted_s(context.nodes.now(), _GAP_S)
    context.probers.sweep(wanted, settled=steady_s >= SETTLE_S)


def _conclude(context: Context, found: Mapping[ClusterKey, Mapping[int, Suspicion]]) -> None:
    context.directory.refresh()
    verdicts = Verdicts(context.nodes, context.suspicions)
    now_ms = context.paths.now_ms()
    for key, suspicions in found.items():
        view = context.directory.snapshot.get(key)
        for machine_id, suspicion in suspicions.items():
            node = view.nodes.get(machine_id) if view else None
            if node is None or suspicion.is_void(node.version, now_ms):
                context.suspicions.end(key, machine_id, suspicion)
            elif now_ms - suspicion.since_ms >= OVERDUE_MS:
                verdicts.conclude(node, suspicion, now_ms, BY)
