"""Changes of rows: the rows before and after, and the checks of a row before it is written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from clusterer.errors import InvalidArgument
from clusterer.membership import Node, State
from clusterer.provisioning.files import COLUMNS, TEXTS
from clusterer.provisioning.names import Names
from clusterer.provisioning.rows import RawRow, RejectedRow, RowKey, as_text, row_key_of, validate
from clusterer.services.context import Context

Values = Mapping[str, object]
"""The values of a row, by our names of the columns; without its id."""

DEFAULTS: Values = {
    "state": int(State.UP),
    "last_attempt": 0,
    "failed_attempts": 3,
    "no_tries": 0,
    "duration": 30,
    "description": "",
}
"""Values of a new row for columns that are not given; the table's own defaults."""

WIDTH = 64
"""Characters in the columns url and description."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_NO_TEXT = re.compile(r"[\ud800-\udfff]")
"""Characters to which Python decodes bytes that are not UTF-8."""


@dataclass(frozen=True, slots=True)
class RowChange:
    """One row before and after a change; None before an addition and after a removal."""

    row_key: RowKey
    before: Mapping[str, str] | None
    after: Mapping[str, str] | None

    @property
    def url(self) -> str:
        """URL of the node after the change; of a removed node the URL before."""
        return (self.after or self.before or {}).get("url", "")

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that differ."""
        before, after = self.before or {}, self.after or {}
        return tuple(name for name in COLUMNS if before.get(name) != after.get(name))

    @property
    def name(self) -> str:
        """Cluster, node and URL."""
        cluster_id, machine_id = self.row_key
        return f"cluster {cluster_id}, node {machine_id}: {self.url}"

    @property
    def differences(self) -> str:
        """Each changed column, old → new."""
        before, after = self.before or {}, self.after or {}
        return ", ".join(
            f"{column} {before.get(column) or 'empty'} → {after.get(column) or 'empty'}"
            for column in self.columns
        )


@dataclass(frozen=True, slots=True)
class Changes:
    """The changes of one command, made or planned."""

    database: str
    """URL without password."""
    table: str
    added: tuple[RowChange, ...] = ()
    changed: tuple[RowChange, ...] = ()
    removed: tuple[RowChange, ...] = ()
    unchanged: tuple[RowKey, ...] = ()
    in_effect_again: bool = False
    """Whether the state of an unchanged row replaced another state in Redis."""
    values: Mapping[RowKey, Values] = field(default_factory=dict, repr=False)
    """Values to write, by row key."""

    @property
    def every(self) -> tuple[RowChange, ...]:
        """All rows that change."""
        return (*self.added, *self.changed, *self.removed)


def planned(
    context: Context,
    found: Iterable[RawRow],
    wanted: Mapping[RowKey, Values],
    *,
    remove: Iterable[RowKey] = (),
) -> Changes:
    """Return the changes that give the ``found`` rows the values ``wanted``."""
    present = {row_key: shown(row) for row in found if (row_key := row_key_of(row))}
    every = [RowChange(m, present.get(m), shown(values)) for m, values in wanted.items()]
    return Changes(
        database=context.database.name,
        table=context.settings.db_table,
        added=tuple(change for change in every if change.before is None),
        changed=tuple(change for change in every if change.before and change.columns),
        removed=tuple(RowChange(m, present[m], None) for m in dict.fromkeys(remove)),
        unchanged=tuple(c.row_key for c in every if c.before and not c.columns),
        values=wanted,
    )


def _values_of(node: Node, row: RawRow) -> Values:
    """Return the values to write of a good ``row`` and its ``node``; texts stay as given."""
    values: dict[str, object] = {name: getattr(node, name) for name in COLUMNS}
    texts = {name: as_text(row[name]) for name in ("url", "description")}
    return values | texts | {"state": int(node.state), "description": texts["description"] or None}


def shown(row: RawRow) -> dict[str, str]:
    """Return the row's cells as text."""
    return {name: as_text(row[name]) for name in COLUMNS}


class RowsRejected(InvalidArgument):
    """Some rows cannot be used; ``rejected`` has each of them, and nothing was written."""

    def __init__(self, rejected: Sequence[RejectedRow], total: int) -> None:
        super().__init__(f"nothing is imported: {len(rejected)} of {total} rows cannot be used")
        self.rejected = tuple(rejected)


def checked(
    rows: Sequence[RawRow], present: Mapping[RowKey, RawRow], names: Names
) -> tuple[dict[RowKey, Values], list[RejectedRow]]:
    """Return the values of the good rows, by row key, and a rejection for each bad row.

    The ids of ``rows`` are unique. ``present``: the present rows of these keys; an unchanged
    text need not fit its column.
    """
    nodes, rejected = validate(rows, {name: name for name in ("id", *COLUMNS)}, names)
    given = {row["id"]: row for row in rows}
    good: dict[RowKey, Values] = {}
    for node in nodes:
        row, row_key = given[node.id], node.row_key
        reason = _misfit(row, present.get(row_key, {}))
        if reason:
            rejected.append(RejectedRow(node.id, *reason))
        else:
            good[row_key] = _values_of(node, row)
    return good, sorted(rejected, key=lambda item: str(item.id).zfill(10))


def by_row_key(rows: Sequence[RawRow]) -> dict[RowKey, RawRow]:
    """Return the rows by key; the first row of a key counts."""
    return {row_key: row for row in reversed(rows) if (row_key := row_key_of(row))}


def _misfit(row: RawRow, present: RawRow) -> tuple[str, str] | None:
    for name in TEXTS:
        if isinstance(row[name], bool | list | dict):
            return name, "is no text"
        text = as_text(row[name])
        if text == as_text(present.get(name)):
            continue
        if len(text) > WIDTH:
            return name, f"{len(text)} characters, the column holds {WIDTH}"
        if _NO_TEXT.search(text):
            return name, "is not UTF-8"
        if _CONTROL.search(text):
            return name, "has a line break or another control character"
    return None
