"""The rows that a reload read from the table, and the report of the reload, also in words."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from clusterer.membership import AddressWarning, Node, address_warnings
from clusterer.membership.columns import StateColumns
from clusterer.membership.reload_plan import NodeChange, ReloadPlan
from clusterer.provisioning.rows import RejectedRow, RowKey
from clusterer.runtime.logs import plain
from clusterer.services.context import Context
from clusterer.services.table.write_back import SyncReport
from clusterer.store import ClusterKey, reloads

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReloadReport:
    """The findings and changes of a reload."""

    database: str
    """URL without password."""
    table: str
    rows: int = 0
    """Rows in the table."""
    added: tuple[Node, ...] = ()
    changed: tuple[NodeChange, ...] = ()
    removed: tuple[Node, ...] = ()
    unchanged: int = 0
    """Nodes whose row Redis had already."""
    rejected: tuple[RejectedRow, ...] = ()
    kept: tuple[Node, ...] = ()
    """Nodes that stay as they were, because their rows were rejected."""
    unreadable: frozenset[RowKey] = frozenset()
    """Nodes that have rows, but no row that can be used."""
    addresses: tuple[AddressWarning, ...] = ()
    """Warnings about the nodes' addresses."""
    flushed: SyncReport = field(default_factory=SyncReport)
    """States written to the table first; empty without persistent mode."""
    repaired: tuple[str, ...] = ()
    """Keys of Redis, beside those of nodes, that were lost or wrong, each with its repair."""

    @property
    def loaded(self) -> int:
        """Number of nodes in Redis after the reload."""
        return len(self.added) + len(self.changed) + self.unchanged

    @property
    def note(self) -> str:
        """Warning about the table as a whole; empty without one."""
        if not self.rows:
            return f"table {self.table!r} is empty: no node is left"
        if len(self.rejected) == self.rows:
            return f"no row of table {self.table!r} can be used: all nodes stay as they were"
        return ""

    @property
    def notes(self) -> list[str]:
        """`note`, if there is one, and the warnings about addresses."""
        return [text for text in (self.note, *(found.text for found in self.addresses)) if text]


@dataclass(frozen=True, slots=True)
class TableRows:
    """The rows of the table, valid and not."""

    rows: int
    rejected: tuple[RejectedRow, ...]
    clusters: dict[ClusterKey, list[Node]]
    unreadable: dict[int, set[int]]
    """cluster_id → machine_ids that have rows, but no row that can be used."""

    @property
    def nodes(self) -> Iterator[Node]:
        """All nodes whose rows are good."""
        return (node for nodes in self.clusters.values() for node in nodes)

    @property
    def unusable(self) -> bool:
        """Whether all of one or more rows are bad: a mistake, not a wish to remove all nodes."""
        return bool(self.rows) and not self.clusters


def report_of(
    context: Context,
    table: TableRows,
    plans: Iterable[ReloadPlan],
    flushed: SyncReport,
    mended: Iterable[str] = (),
) -> ReloadReport:
    """Return the report of a reload that wrote ``flushed`` first and carried out ``plans``."""
    ordered: Sequence[ReloadPlan] = sorted(plans, key=lambda plan: plan.key)
    kept = tuple(node for plan in ordered for node in plan.kept)
    return ReloadReport(
        database=context.database.name,
        table=context.settings.db_table,
        rows=table.rows,
        added=tuple(node for plan in ordered for node in plan.added),
        changed=tuple(change for plan in ordered for change in plan.changed),
        removed=tuple(node for plan in ordered for node in plan.removed),
        unchanged=sum(plan.unchanged for plan in ordered),
        rejected=table.rejected,
        kept=kept,
        unreadable=frozenset((c, m) for c, found in table.unreadable.items() for m in found),
        addresses=tuple(address_warnings((*table.nodes, *kept))),
        flushed=flushed,
        repaired=(*mended, *(line for plan in ordered for line in reloads.described(plan.repairs))),
    )


def logged(report: ReloadReport) -> ReloadReport:
    """Log the report, and return it."""
    for line in report.repaired:
        log.info("reload: Redis repaired: %s", line)
    log.info(
        "database %s: reloaded: %d rows, %d added, %d changed, %d removed, %d unchanged, "
        "%d rejected",
        report.database,
        report.rows,
        len(report.added),
        len(report.changed),
        len(report.removed),
        report.unchanged,
        len(report.rejected),
    )
    return report


def log_faults(report: ReloadReport) -> None:
    """Log the rejected rows and the warnings, where no command prints the report."""
    for fault in (*(f"rejected {row}" for row in report.rejected), *report.notes):
        log.warning("reload: %s", fault)


def described(report: ReloadReport, *, dry_run: bool = False) -> Iterator[str]:
    """Yield the report's lines; of a ``dry_run`` with old and new values."""
    yield (
        f"{'Would load' if dry_run else 'Loaded'} {report.loaded} of {report.rows} rows of "
        f"table {report.table} in {report.database}: "
        f"{len(report.added)} added, {len(report.changed)} changed, "
        f"{len(report.removed)} removed, {report.unchanged} unchanged, "
        f"{len(report.rejected)} rejected."
    )
    yield from _nodes(report, values=dry_run)
    if report.flushed.written:
        yield f"Written to the table first: {report.flushed.written} changed nodes."
    if report.flushed.waiting and dry_run:
        yield f"Would write to the table first: {report.flushed.waiting} changed nodes."
    for note in report.notes:
        yield f"Note: {note}."


def _nodes(report: ReloadReport, *, values: bool) -> Iterator[str]:
    for node in report.added:
        yield f"  added    {_name(node)}"
    for change in report.changed:
        yield f"  changed  {_name(change.after)} ({_columns(change, values=values)})"
    for node in report.removed:
        yield f"  removed  {_name(node)}"
    for rejected in report.rejected:
        yield f"  rejected {rejected}"
    for node in report.kept:
        yield f"  kept     {_name(node)} (as it was, until its row can be used)"
    for line in report.repaired:
        yield f"  repaired {plain(line)}"
    for node in report.flushed.edited:
        yield f"  edited   {_name(node)} (the table's {StateColumns.of(node).named} wins)"


def _columns(change: NodeChange, *, values: bool) -> str:
    if not values:
        return ", ".join(change.columns)
    return ", ".join(
        f"{name} {_before(change, name)} → {_shown(change.after, name)}" for name in change.columns
    )


def _before(change: NodeChange, name: str) -> str:
    return "unusable" if name in change.mended else _shown(change.before, name)


def _shown(node: Node, name: str) -> str:
    value = getattr(node, name)
    return str(int(value)) if isinstance(value, int) else value or "empty"


def _name(node: Node) -> str:
    return f"cluster {node.cluster_id}, node {node.machine_id}: {node.url}"
