"""Loads the provisioning table into Redis."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from clusterer.errors import StateUnavailable
from clusterer.membership import Node, address_warnings
from clusterer.membership.columns import StateColumns
from clusterer.membership.reload_plan import ReloadPlan, Snapshot, plan_reload
from clusterer.membership.views import all_nodes
from clusterer.provisioning.names import Names
from clusterer.provisioning.rows import RawRow, RowKey, row_key_of, validate
from clusterer.provisioning.schema import Schema, require
from clusterer.provisioning.table import read_rows
from clusterer.services.context import Context
from clusterer.services.table import resolve, write_back
from clusterer.services.table.reload_report import ReloadReport, TableRows, logged, report_of
from clusterer.services.table.write_back import SyncReport
from clusterer.store import Cause, ClusterKey, ClusterView
from clusterer.store.format import require_format
from clusterer.store.reload_read import Found
from clusterer.store.reloads import CLUSTERS_MENDED, ReloadStore

log = logging.getLogger(__name__)

_ATTEMPTS = 20
"""Rounds for clusters that change during the reload."""


def run(
    context: Context, *, by: str = "reload", reason: str = "", names: Names | None = None
) -> ReloadReport:
    """Replace the nodes in Redis by those of the table; return the report.

    In persistent mode the reload first writes changed states to the table; otherwise these states
    are lost. The report names each bad row: the nodes of bad rows stay as they were. If every row
    is bad, nothing changes. ``by`` and ``reason``: author and reason, for the audit; ``names``:
    resolver of DNS names.

    Raises `ProvisioningError` (nothing has changed) or `StateUnavailable`.
    """
    require_format(context.settings, context.redis)
    store = ReloadStore(context.settings, context.redis)
    names = names or Names()
    done: dict[ClusterKey, ReloadPlan] = {}
    open_clusters: set[ClusterKey] | None = None
    flushed, mended = SyncReport(), set[str]()
    for _ in range(_ATTEMPTS):
        flushed = flushed.merged(write_back.flush(context))
        # Redis before the table: the read of the table then sees states written meanwhile.
        found = store.find()
        snapshots = store.read(found.clusters, found)
        resolve.prefer(names, (snapshot.view for snapshot in snapshots.values()))
        table = _read(context, names)
        plans = [] if table.unusable else _plan(context, store, snapshots, table, found)
        if found.set_is_wrong and plans:
            store.mend_clusters([plan.key for plan in plans if plan.populated])
            mended.add(CLUSTERS_MENDED)
        if open_clusters is not None:
            plans = [plan for plan in plans if plan.key in open_clusters]
        open_clusters = store.commit(plans, context.nodes.now(), Cause(by, reason))
        done |= {plan.key: plan for plan in plans if plan.key not in open_clusters}
        _note_reports(context, [plan for plan in plans if plan.key in done], by)
        if not open_clusters:
            store.note_loaded(context.nodes.now(), by)
            return logged(report_of(context, table, done.values(), flushed, mended))
    raise StateUnavailable(
        f"clusters {', '.join(map(str, sorted(open_clusters or ())))} changed {_ATTEMPTS} times "
        "while they were reloaded; the others are loaded; try again"
    )


def preview(context: Context, *, names: Names | None = None) -> ReloadReport:
    """Return the report that `run` would make; change neither Redis nor the table.

    ``flushed``: `run` would write the states of ``waiting`` nodes to the table, and the nodes
    ``edited`` would take over the state in the table. Raises `ProvisioningError` or
    `StateUnavailable`.
    """
    store = ReloadStore(context.settings, context.redis)
    found = store.find()
    snapshots = store.read(found.clusters, found)
    names = resolve.prefer(names or Names(), (snapshot.view for snapshot in snapshots.values()))
    table = _read(context, names)
    plans = [] if table.unusable else _plan(context, store, snapshots, table, found)
    mended = {CLUSTERS_MENDED} if found.set_is_wrong and plans else set()
    persistent = context.settings.persistent_mode
    flushed = _foreseen(snapshots, table, context.database.schema) if persistent else None
    return report_of(context, table, plans, flushed or SyncReport(), mended)


def _foreseen(
    snapshots: Mapping[ClusterKey, Snapshot], table: TableRows, schema: Schema
) -> SyncReport:
    """Return the report of a sync: the sync also writes to a bad row, unless its state is bad."""
    state = {schema.columns[name] for name in StateColumns._fields}
    writable = {item.row_key for item in table.rejected if item.column not in state}
    waiting, edited = 0, []
    for key, snapshot in snapshots.items():
        rows = {row.machine_id: row for row in table.clusters.get(key, ())}
        for machine_id in snapshot.dirty & snapshot.view.nodes.keys():
            node, row = snapshot.view.nodes[machine_id], rows.get(machine_id)
            if row is not None and snapshot.edited(row):
                edited.append(StateColumns.of(row).applied_to(node))
            elif row is not None or (key.cluster_id, machine_id) in writable:
                waiting += 1
    return SyncReport(waiting=waiting, edited=tuple(edited))


def apply_rows(
    context: Context,
    only: Collection[RowKey],
    *,
    by: str,
    settled: bool,
    names: Names,
    reason: str = "",
) -> ReloadReport:
    """Bring the rows of some nodes into Redis; leave all other nodes as they are.

    ``settled``: the states of the rows replace the states in Redis. Otherwise a state that is not
    in the table yet stays. Raises the errors of `run`.
    """
    store = ReloadStore(context.settings, context.redis)
    clusters = {cluster_id for cluster_id, _ in only}
    for _ in range(_ATTEMPTS):
        known = [key for key in context.nodes.clusters() if key.cluster_id in clusters]
        found = store.read(known)
        table = _read(context, names, only)
        snapshots = found | store.read([key for key in table.clusters if key not in found])
        narrowed = {key: _narrowed(snapshot, only) for key, snapshot in snapshots.items()}
        plans = _plans(context, narrowed, table, persistent=not settled)
        # Each plan is for another cluster: in the next round the committed ones change nothing.
        if not store.commit(plans, context.nodes.now(), Cause(by, reason)):
            _note_reports(context, plans, by)
            report = logged(report_of(context, table, plans, SyncReport()))
            _warn_of_addresses(snapshots.values(), table, only)
            return report
    raise StateUnavailable(f"the clusters changed {_ATTEMPTS} times meanwhile; try again")


def _note_reports(context: Context, plans: Iterable[ReloadPlan], by: str) -> None:
    for plan in plans:
        for node, says in plan.reported:
            write_back.note_report(context, node, says, by=by)


def _narrowed(snapshot: Snapshot, only: Collection[RowKey]) -> Snapshot:
    """Return the snapshot with only some nodes."""
    view = snapshot.view
    nodes = [node for node in view.nodes.values() if node.row_key in only]
    return replace(snapshot, view=ClusterView.of(view.key, view.version, nodes))


def rows(context: Context) -> list[RawRow]:
    """Return all rows of the table. Raises `ProvisioningError`."""
    database = context.database
    with database.connection("read the table") as connection:
        require(connection, database.schema)
        return read_rows(connection, database.schema)


def _read(context: Context, names: Names, only: Collection[RowKey] | None = None) -> TableRows:
    found = rows(context)
    if only is not None:
        found = [row for row in found if row_key_of(row) in only]
    nodes, rejected = validate(found, context.database.schema.columns, names)
    clusters: dict[ClusterKey, list[Node]] = {}
    for node in nodes:
        clusters.setdefault(node.cluster, []).append(node)
    unreadable: dict[int, set[int]] = {}
    good = {node.row_key for node in nodes}
    for cluster_id, machine_id in {item.row_key for item in rejected if item.row_key} - good:
        unreadable.setdefault(cluster_id, set()).add(machine_id)
    return TableRows(len(found), tuple(rejected), clusters, unreadable)


def _plan(
    context: Context,
    store: ReloadStore,
    known: dict[ClusterKey, Snapshot],
    table: TableRows,
    found: Found,
) -> list[ReloadPlan]:
    snapshots = known | store.read([key for key in table.clusters if key not in known], found)
    return _plans(context, snapshots, table, persistent=context.settings.persistent_mode)


def _plans(
    context: Context,
    snapshots: Mapping[ClusterKey, Snapshot],
    table: TableRows,
    *,
    persistent: bool,
) -> list[ReloadPlan]:
    now = context.nodes.now()
    return [
        plan_reload(
            snapshots[key],
            table.clusters.get(key, ()),
            persistent=persistent,
            unreadable=table.unreadable.get(key.cluster_id, ()),
            now=now,
        )
        for key in sorted(snapshots)
    ]


def _warn_of_addresses(
    snapshots: Iterable[Snapshot], table: TableRows, only: Collection[RowKey]
) -> None:
    """Log the address warnings that concern some nodes."""
    nodes = all_nodes(found.view for found in snapshots)
    others = [node for node in nodes if node.row_key not in only]
    for warning in address_warnings((*table.nodes, *others)):
        if any(node.row_key in only for node in warning.nodes):
            log.warning("reload: %s", warning.text)
