"""The probe job: has probing nodes checked, re-enables disabled ones, settles recovered ones.

Where a prober on another host than the node's is present, the job opens a round: the probers answer
it, and decide. Else the job itself pings. After a prober that ended, the job
concludes suspicions, removes probers that ended, and deletes void records of paths.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from clusterer.ids import PROTO_BIN
from clusterer.membership import Condition, Event, Node, NodeKey
from clusterer.membership.paths import is_void
from clusterer.membership.suspicions import WINDOW_MS, Kind, Suspicion
from clusterer.membership.views import node_in, node_of
from clusterer.prober.verdicts import Verdicts
from clusterer.runtime.routes import is_local
from clusterer.services.context import Context
from clusterer.services.periodic.reach import ping_all
from clusterer.settings import REENABLE_PROBE
from clusterer.store import Cause, ClusterKey
from clusterer.store.due import Observation
from clusterer.store.format import require_format
from clusterer.store.suspicions import Opened

HIDE_S = 2.0
"""Time for which a claimed node is hidden from overlapping jobs: longer than any ping, and short,
because the nodes of a killed job wait for so long."""

OVERDUE_MS = WINDOW_MS + 250
"""The probers that were asked have concluded a suspicion by then."""

SETTLE_S = 3.0
"""Time after an outage of Redis before probers are removed that have not come back."""

_GAP_S = 2.5
"""A longer pause between two probe jobs is taken for an outage."""

VOID_EVERY_S = 5.0
"""Interval at which one maintenance worker looks for void records of paths."""

BY = Cause("probe")
_REASON = "no host reaches the node"


def run(context: Context) -> int:
    """Look at every due node; return their number. Raises `StateUnavailable`."""
    require_format(context.settings, context.redis)
    clusters = context.nodes.clusters()
    due = context.due.claim(clusters, HIDE_S)
    to_ping = [node for node in due if _needs_ping(context, node)]
    asked = _ask(context, to_ping)
    errors = ping_all(node for node in to_ping if node.key not in asked)
    silent = [n for n in to_ping if n.condition is Condition.DISABLED and n.key in errors]
    context.due.postpone([n for n in due if n.key in asked or n in silent])
    context.due.conclude(
        _observed(node, errors.get(node.key, ""))
        for node in due
        if node.key not in asked and node not in silent
    )
    conclude(context, clusters)
    if context.intervals.due("void paths", VOID_EVERY_S):
        clear_void_paths(context)
    return len(due)


def _needs_ping(context: Context, node: Node) -> bool:
    if node.protocol != PROTO_BIN:
        return False
    if node.condition is Condition.DISABLED:
        return context.settings.reenable == REENABLE_PROBE
    return node.condition is Condition.PROBING


def _observed(node: Node, error: str) -> Observation:
    if node.condition is not Condition.PROBING:
        return Observation(node, Event.DURATION_ELAPSED, BY)
    event = Event.PROBE_FAILED if error else Event.PROBE_SUCCEEDED
    return Observation(node, event, Cause(BY.by, error))


def _ask(context: Context, nodes: Iterable[Node]) -> set[NodeKey]:
    """Open a round for each node that a prober on another host can check; return which."""
    asked: set[NodeKey] = set()
    present: dict[ClusterKey, Collection[int]] = {}
    for node in nodes:
        key = node.cluster
        if key not in present:
            present[key] = context.probers.present(key)
            if present[key]:
                context.directory.refresh()
        if not present[key] or _all_here(context, key, node, present[key]):
            continue
        views = context.directory.snapshot
        opened = context.suspicions.open(node, Kind.PROBE, asking=None, reason=_REASON, views=views)
        if opened is not Opened.ALONE:
            asked.add(node.key)
    return asked


def _all_here(context: Context, key: ClusterKey, node: Node, probers: Collection[int]) -> bool:
    """Whether a node and all probers are on this host, whatever their addresses are."""
    if not is_local(node.host):
        return False
    rows = (node_in(key, prober, context.directory.snapshot) for prober in probers)
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
        for machine_id, suspicion in suspicions.items():
            node = node_in(key, machine_id, context.directory.snapshot)
            if node is None or suspicion.is_void(node.version, now_ms):
                context.nodes.end_suspicion(key, machine_id, suspicion)
            elif now_ms - suspicion.since_ms >= OVERDUE_MS:
                verdicts.conclude(node, suspicion, now_ms, BY.by)


def clear_void_paths(context: Context) -> int:
    """Delete the void records of paths that no prober deletes; return their number.

    These are the records of hosts without a prober, and records whose counter Redis has lost.
    """
    senders = sorted({*context.paths.counters(), *context.paths.scan()})
    if not senders:
        return 0
    found = context.paths.all_records(senders)
    context.directory.refresh()  # after the records: none is of a later epoch than its node
    views = context.directory.snapshot
    deleted = 0
    for sender, records in found.items():
        void = {
            field: path
            for field, path in records.items()
            if is_void(path, node_of(field, views), records.now_ms)
        }
        if void:
            context.paths.delete(sender, void)
            deleted += len(void)
    return deleted
