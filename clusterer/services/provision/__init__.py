"""Changes the provisioning table: checks the rows, writes them in one transaction, and loads them.

The changes are in effect at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace as replaced

from clusterer.errors import ChangedMeanwhile, InvalidArgument, UnknownNode
from clusterer.membership import State
from clusterer.provisioning.files import COLUMNS, FileRow
from clusterer.provisioning.names import Names
from clusterer.provisioning.rows import RawRow, RowKey, as_text, row_key_of
from clusterer.services.context import Context
from clusterer.services.provision.row_changes import (
    DEFAULTS,
    WIDTH,
    Changes,
    RowChange,
    RowsRejected,
    by_row_key,
    checked,
    planned,
    shown,
)
from clusterer.services.provision.writing import apply, known, write
from clusterer.services.table import resolve
from clusterer.services.table.reload import rows

__all__ = [
    "DEFAULTS",
    "WIDTH",
    "Changes",
    "RowChange",
    "RowsRejected",
    "add",
    "edit",
    "export",
    "import_rows",
    "remove",
    "row",
]


def add(
    context: Context,
    values: Mapping[str, object],
    *,
    by: str,
    reason: str = "",
    names: Names | None = None,
    dry_run: bool = False,
) -> Changes:
    """Add a row; columns not in ``values`` have their defaults. ``dry_run`` changes nothing.

    Raises `InvalidArgument` if a reload would reject the row, or if the table has a row of this
    node already; `ProvisioningError` or `StateUnavailable` without database or Redis.
    """
    names = resolve.kept_names(context, names)

    def plan(found: list[RawRow]) -> Changes:
        if row := by_row_key(found).get(row_key_of(values) or (0, 0)):
            raise InvalidArgument(_doubled(context, row))
        return _one(context, found, {**DEFAULTS, **values}, names)

    if dry_run:
        return plan(rows(context))
    changes = write(context, plan)
    apply(context, changes, by=by, reason=reason, names=names)
    return changes


def edit(
    context: Context,
    row_key: RowKey,
    values: Mapping[str, object],
    *,
    by: str,
    reason: str = "",
    names: Names | None = None,
    seen: Mapping[str, str] | None = None,
    dry_run: bool = False,
) -> Changes:
    """Change some columns of a node's row. A state in ``values`` starts without failed attempts,
    and replaces the state in Redis also if the row had it already.

    The change may correct a row that a reload rejects. ``seen``: values of columns as the operator
    saw them; `edit` raises `ChangedMeanwhile` if the row has others. ``dry_run`` changes nothing.
    Raises `UnknownNode` without a row of the node, and the errors of `add`.
    """
    names = resolve.kept_names(context, names)
    given = {"no_tries": 0} | dict(values) if values.get("state") == State.UP else dict(values)

    def plan(found: list[RawRow]) -> Changes:
        row = _row_of(context, found, row_key)
        _require_unchanged(row, seen)
        return _one(context, found, dict(row) | given, names)

    if dry_run:
        return plan(rows(context))
    changes = write(context, plan)
    named = {row_key} if "state" in values else ()
    applied = apply(context, changes, by=by, reason=reason, names=names, named=named)
    return replaced(changes, in_effect_again=bool(changes.unchanged and applied))


def remove(
    context: Context,
    row_key: RowKey,
    *,
    by: str,
    reason: str = "",
    seen: Mapping[str, str] | None = None,
    dry_run: bool = False,
) -> Changes:
    """Remove a node's row; ``seen`` and ``dry_run`` as in `edit`.

    Raises `UnknownNode` without a row, and the errors of `add`.
    """

    def plan(found: list[RawRow]) -> Changes:
        row = _row_of(context, found, row_key, several=True)
        _require_unchanged(row, seen)
        return planned(context, found, {}, remove=[row_key])

    if dry_run:
        return plan(rows(context))
    changes = write(context, plan)
    apply(context, changes, by=by, reason=reason, names=resolve.kept_names(context))
    return changes


def row(context: Context, row_key: RowKey) -> Mapping[str, str]:
    """Return the cells of a node's row as text, by our names of the columns.

    Raises `UnknownNode` without a row, `ProvisioningError`.
    """
    return shown(_row_of(context, rows(context), row_key, several=True))


def import_rows(
    context: Context,
    given: Sequence[FileRow],
    *,
    by: str,
    replace: bool = False,
    dry_run: bool = False,
) -> Changes:
    """Add the rows of new nodes, change the other rows; all or none.

    Columns that the file leaves out stay; in new rows they have their defaults. ``replace`` removes
    all rows that are not in the file; ``dry_run`` changes nothing. Raises `RowsRejected` if a row
    cannot be used, and the errors of `add`.
    """
    if replace and not given:
        raise InvalidArgument("the file has no rows: the import would remove all nodes")
    names = resolve.kept_names(context)

    def plan(found: list[RawRow]) -> Changes:
        present = by_row_key(found)
        merged = [
            {
                **DEFAULTS,
                **present.get(row_key_of(row.values) or (0, 0), {}),
                **row.values,
                "id": row.number,
            }
            for row in given
        ]
        good, rejected = checked(merged, present, names)
        if rejected:
            raise RowsRejected(rejected, len(given))
        gone = [row_key for row_key in present if row_key not in good] if replace else []
        return planned(context, found, good, remove=gone)

    if dry_run:
        return plan(rows(context))
    changes = write(context, plan)
    apply(context, changes, by=by, names=names, also=known(context) if replace else ())
    return changes


def export(context: Context) -> list[RawRow]:
    """Return all rows of the table, unchanged. Raises `ProvisioningError`."""
    return [{**row, **{name: _exported(row[name]) for name in COLUMNS}} for row in rows(context)]


def _row_of(
    context: Context, found: Iterable[RawRow], row_key: RowKey, *, several: bool = False
) -> RawRow:
    own = [row for row in found if row_key_of(row) == row_key]
    if not own:
        table = context.settings.db_table
        still = row_key in known(context)
        hint = "Redis still has the node: run `clusterer reload`"
        text = f"table {table!r} has no node {row_key[1]} in cluster {row_key[0]}"
        raise UnknownNode(f"{text}; {hint if still else '`clusterer export` shows the rows'}")
    if len(own) > 1 and not several:
        ids = ", ".join(str(row["id"]) for row in own)
        raise InvalidArgument(f"node {row_key[1]} of cluster {row_key[0]} is in rows {ids}")
    return own[0]


def _require_unchanged(row: RawRow, seen: Mapping[str, str] | None) -> None:
    present = shown(row)
    other = [name for name, value in (seen or {}).items() if present.get(name) != value]
    if other:
        now = ", ".join(f"{name} {present.get(name) or 'empty'}" for name in other)
        node = f"node {present['machine_id']} of cluster {present['cluster_id']}"
        raise ChangedMeanwhile(f"the row of {node} was changed meanwhile; now: {now}")


def _doubled(context: Context, row: RawRow) -> str:
    text = (
        f"cluster {row['cluster_id']} has a node {row['machine_id']} already, in row "
        f"{row['id']}: {as_text(row['url'])}; "
    )
    if row_key_of(row) in known(context):
        return text + "`clusterer node-edit` changes the row"
    return text + "the row is not in effect: `clusterer reload` loads the row, or names its fault"


def _one(
    context: Context, found: list[RawRow], values: Mapping[str, object], names: Names
) -> Changes:
    good, rejected = checked([{**values, "id": 1}], by_row_key(found), names)
    if rejected:
        raise InvalidArgument(f"{rejected[0].column}: {rejected[0].reason}")
    return planned(context, found, good)


def _exported(value: object) -> object:
    return value if isinstance(value, int) and not isinstance(value, bool) else as_text(value)
