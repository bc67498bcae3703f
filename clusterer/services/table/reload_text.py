"""The report of a reload in words, for the command line and the console."""

from __future__ import annotations

from collections.abc import Iterator

from clusterer.membership import Node
from clusterer.membership.columns import StateColumns
from clusterer.membership.reload_plan import NodeChange
from clusterer.runtime.logs import plain
from clusterer.services.table.reload_report import ReloadReport


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
        yield f"  edited   {_name(node)} (the table's {_state(node)} wins)"


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


def _state(node: Node) -> str:
    return ", ".join(f"{name} {value}" for name, value in StateColumns.of(node)._asdict().items())


def _name(node: Node) -> str:
    return f"cluster {node.cluster_id}, node {node.machine_id}: {node.url}"
