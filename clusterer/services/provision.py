"""Changing the provisioning table: checked before, written as one, in effect at once."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from clusterer.errors import InvalidArgument, ProvisioningError, StateUnavailable, UnknownNode
from clusterer.membership import Node, State
from clusterer.provisioning import (
    Machine,
    Names,
    RejectedRow,
    machine_of,
    read_rows,
    replace_rows,
    require,
    validate,
)
from clusterer.provisioning.files import COLUMNS, FileRow
from clusterer.provisioning.rows import RawRow, as_text
from clusterer.services import reload
from clusterer.services.context import Context

DEFAULTS: Mapping[str, object] = {
    "state": int(State.UP),
    "last_attempt": 0,
    "failed_attempts": 3,
    "no_tries": 0,
    "duration": 30,
    "description": "",
}
"""What a new row has where nothing is said; the table's own defaults."""

WIDTH = 64
"""Characters in the columns url and description."""

_STATE = ("state", "last_attempt", "no_tries")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NO_TEXT = re.compile(r"[\ud800-\udfff]")
"""What Python makes of bytes that are not UTF-8."""


class RowsRejected(InvalidArgument):
    """Rows that cannot be used, each in ``rejected``; nothing was written."""

    def __init__(self, rejected: Sequence[RejectedRow], total: int) -> None:
        super().__init__(f"nothing is imported: {len(rejected)} of {total} rows cannot be used")
        self.rejected = tuple(rejected)


@dataclass(frozen=True, slots=True)
class RowChange:
    """One row before and after; None where there is none."""

    machine: Machine
    before: Mapping[str, str] | None
    after: Mapping[str, str] | None

    @property
    def url(self) -> str:
        """Where the machine is, or was."""
        return (self.after or self.before or {}).get("url", "")

    @property
    def columns(self) -> tuple[str, ...]:
        """What differs."""
        before, after = self.before or {}, self.after or {}
        return tuple(name for name in COLUMNS if before.get(name) != after.get(name))


@dataclass(frozen=True, slots=True)
class Changes:
    """What is, or would be, done to the table."""

    database: str
    """URL without password."""
    table: str
    added: tuple[RowChange, ...] = ()
    changed: tuple[RowChange, ...] = ()
    removed: tuple[RowChange, ...] = ()
    unchanged: tuple[Machine, ...] = ()
    in_effect_again: bool = False
    """Whether a row that did not change brought back its state, which had changed in Redis."""
    values: Mapping[Machine, Mapping[str, object]] = field(default_factory=dict, repr=False)
    """What is written, by machine."""


def add(
    context: Context, values: Mapping[str, object], *, by: str, names: Names | None = None
) -> Changes:
    """Add a row; columns not in ``values`` have their defaults.

    Raises `InvalidArgument` if reload would reject it or its machine has a row already,
    `ProvisioningError` or `StateUnavailable` without database or Redis.
    """
    found = _rows(context)
    machine = machine_of(values)
    for row in found:
        if machine_of(row) == machine:
            raise InvalidArgument(
                f"cluster {row['cluster_id']} has a machine {row['machine_id']} already, in row "
                f"{row['id']}: {as_text(row['url'])}; `clusterer node-edit` changes it"
            )
    return _one(context, found, {**DEFAULTS, **values}, by, names)


def edit(
    context: Context,
    machine: Machine,
    values: Mapping[str, object],
    *,
    by: str,
    names: Names | None = None,
) -> Changes:
    """Change some columns of a machine's row. A state set here begins with no failed tries, and
    is in effect then also where the row had it already.

    A row that reload rejects may be mended. Raises `UnknownNode` without such a row, else as
    `add` does.
    """
    found = _rows(context)
    row = _row_of(context, found, machine)
    if values.get("state") == State.UP:
        values = {"no_tries": 0} | dict(values)
    settled = {machine} if "state" in values else set()
    return _one(context, found, dict(row) | dict(values), by, names, settled=settled)


def remove(context: Context, machine: Machine, *, by: str) -> Changes:
    """Remove a machine's row. Raises `UnknownNode` without one, else as `add` does."""
    found = _rows(context)
    _row_of(context, found, machine, several=True)
    changes = _planned(context, found, [], remove=[machine])
    _write(context, changes, by, None)
    return changes


def import_rows(
    context: Context,
    rows: Sequence[FileRow],
    *,
    by: str,
    replace: bool = False,
    dry_run: bool = False,
    names: Names | None = None,
) -> Changes:
    """Add the rows whose machine is new, change the others; all or nothing.

    Columns that the file leaves out stay, or have their defaults. ``replace`` removes all rows
    that are not in the file; ``dry_run`` changes nothing. Raises `RowsRejected` if any row cannot
    be used, else as `add` does.
    """
    if replace and not rows:
        raise InvalidArgument("the file has no rows, and would replace all nodes by none")
    names = names or Names()
    found = _rows(context)
    present = {machine_of(row): row for row in reversed(found)}
    merged = [
        {**DEFAULTS, **present.get(machine_of(row.values), {}), **row.values, "id": row.number}
        for row in rows
    ]
    nodes, rejected = _checked(merged, names)
    if rejected:
        raise RowsRejected(rejected, len(rows))
    kept = {(node.cluster_id, node.machine_id) for node in nodes}
    gone = [m for row in found if (m := machine_of(row)) and m not in kept] if replace else []
    changes = _planned(context, found, nodes, remove=gone)
    if not dry_run:
        _write(context, changes, by, names)
    return changes


def export(context: Context) -> list[RawRow]:
    """Return all rows as they are in the table. Raises `ProvisioningError`."""
    return [
        row | {name: _export(row[name]) for name in COLUMNS} for row in map(dict, _rows(context))
    ]


def _rows(context: Context) -> list[RawRow]:
    database = context.database
    with database.connection("read the table") as connection:
        require(connection, database.schema)
        return read_rows(connection, database.schema)


def _row_of(
    context: Context, found: Iterable[RawRow], machine: Machine, *, several: bool = False
) -> RawRow:
    rows = [row for row in found if machine_of(row) == machine]
    if not rows:
        table = context.settings.db_table
        raise UnknownNode(f"table {table!r} has no machine {machine[1]} in cluster {machine[0]}")
    if len(rows) > 1 and not several:
        ids = ", ".join(str(row["id"]) for row in rows)
        raise InvalidArgument(f"machine {machine[1]} of cluster {machine[0]} is in rows {ids}")
    return rows[0]


def _one(
    context: Context,
    found: Sequence[RawRow],
    values: Mapping[str, object],
    by: str,
    names: Names | None,
    *,
    settled: Collection[Machine] = (),
) -> Changes:
    names = names or Names()
    nodes, rejected = _checked([{"id": 1} | dict(values)], names)
    if rejected:
        raise InvalidArgument(f"{rejected[0].column}: {rejected[0].reason}")
    changes = _planned(context, found, nodes)
    applied = _write(context, changes, by, names, settled)
    return replace(changes, in_effect_again=bool(changes.unchanged and applied))


def _checked(rows: Sequence[RawRow], names: Names) -> tuple[list[Node], list[RejectedRow]]:
    """Judge rows as reload does, and by what the table's columns can hold."""
    nodes, rejected = validate(rows, {name: name for name in ("id", *COLUMNS)}, names)
    given = {row["id"]: row for row in rows}
    good = []
    for node in nodes:
        reason = _misfit(given[node.id])
        if reason:
            rejected.append(RejectedRow(node.id, *reason))
        else:
            good.append(node)
    return good, sorted(rejected, key=lambda item: str(item.id).zfill(10))


def _misfit(row: RawRow) -> tuple[str, str] | None:
    for name in ("url", "description"):
        text = as_text(row[name])
        if len(text) > WIDTH:
            return name, f"{len(text)} characters, the column holds {WIDTH}"
        if _NO_TEXT.search(text):
            return name, "is not UTF-8"
        if _CONTROL.search(text):
            return name, "has a line break or another control character"
    return None


def _planned(
    context: Context,
    found: Iterable[RawRow],
    nodes: Iterable[Node],
    *,
    remove: Iterable[Machine] = (),
) -> Changes:
    present = {machine: _shown(row) for row in found if (machine := machine_of(row))}
    values = {(node.cluster_id, node.machine_id): _values(node) for node in nodes}
    every = [RowChange(machine, present.get(machine), _shown(v)) for machine, v in values.items()]
    return Changes(
        database=context.database.name,
        table=context.settings.db_table,
        added=tuple(change for change in every if change.before is None),
        changed=tuple(change for change in every if change.before and change.columns),
        removed=tuple(RowChange(m, present[m], None) for m in dict.fromkeys(remove)),
        unchanged=tuple(c.machine for c in every if c.before and not c.columns),
        values=values,
    )


def _write(
    context: Context,
    changes: Changes,
    by: str,
    names: Names | None,
    settled: Collection[Machine] = (),
) -> int:
    """Write and apply the changes; return how many nodes are others in Redis now."""
    context.nodes.now()  # without Redis nothing is begun
    database = context.database
    with database.connection("change the table") as connection:
        replace_rows(
            connection,
            database.schema,
            add=[changes.values[item.machine] for item in changes.added],
            change=[
                (item.machine, {name: changes.values[item.machine][name] for name in item.columns})
                for item in changes.changed
            ],
            remove=[item.machine for item in changes.removed],
        )
    try:
        return _apply(context, changes, by, names or Names(), settled)
    except (StateUnavailable, ProvisioningError) as error:
        raise StateUnavailable(
            f"the table is changed, but not in effect yet ({error}); run `clusterer reload`"
        ) from error


def _apply(
    context: Context, changes: Changes, by: str, names: Names, named: Collection[Machine]
) -> int:
    """Bring the rows into Redis. A state counts where the table got a new one, or where it was
    ``named``; elsewhere one that only Redis knows must outlive the edit of a description.
    """
    every = [*changes.added, *changes.changed, *changes.removed]
    settled = {c.machine for c in every if c.before is None or set(c.columns) & set(_STATE)}
    settled |= set(named)
    others = {change.machine for change in every} - settled | set(changes.unchanged)
    applied = 0
    for only, by_table in ((settled, True), (others, False)):
        if only:
            report = reload.apply_rows(context, only, by=by, settled=by_table, names=names)
            applied += len(report.added) + len(report.changed) + len(report.removed)
    return applied


def _values(node: Node) -> dict[str, object]:
    values: dict[str, object] = {name: getattr(node, name) for name in COLUMNS}
    return values | {"state": int(node.state), "description": node.description or None}


def _shown(row: RawRow) -> dict[str, str]:
    return {name: as_text(row[name]) for name in COLUMNS}


def _export(value: object) -> object:
    return value if isinstance(value, int) and not isinstance(value, bool) else as_text(value)
