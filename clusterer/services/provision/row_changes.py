"""Changes of the table: the rows before and after."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from clusterer.membership import Node
from clusterer.provisioning.files import COLUMNS
from clusterer.provisioning.rows import Machine, RawRow, as_text, machine_of

Values = Mapping[str, object]
"""The values of a row, by our names of the columns; without its id."""


@dataclass(frozen=True, slots=True)
class RowChange:
    """One row before and after a change; None before an addition and after a removal."""

    machine: Machine
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
        cluster_id, machine_id = self.machine
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
    unchanged: tuple[Machine, ...] = ()
    in_effect_again: bool = False
    """Whether the state of an unchanged row replaced another state in Redis."""
    values: Mapping[Machine, Values] = field(default_factory=dict, repr=False)
    """Values to write, by machine."""

    @property
    def every(self) -> tuple[RowChange, ...]:
        """All rows that change."""
        return (*self.added, *self.changed, *self.removed)


def planned(
    database: str,
    table: str,
    found: Iterable[RawRow],
    wanted: Mapping[Machine, Values],
    *,
    remove: Iterable[Machine] = (),
) -> Changes:
    """Return the changes that give the ``found`` rows the values ``wanted``; pure."""
    present = {machine: shown(row) for row in found if (machine := machine_of(row))}
    every = [RowChange(m, present.get(m), shown(values)) for m, values in wanted.items()]
    return Changes(
        database=database,
        table=table,
        added=tuple(change for change in every if change.before is None),
        changed=tuple(change for change in every if change.before and change.columns),
        removed=tuple(RowChange(m, present[m], None) for m in dict.fromkeys(remove)),
        unchanged=tuple(c.machine for c in every if c.before and not c.columns),
        values=wanted,
    )


def values_of(node: Node, row: RawRow) -> Values:
    """Return the values to write of a good ``row`` and its ``node``; texts stay as given."""
    values: dict[str, object] = {name: getattr(node, name) for name in COLUMNS}
    texts = {name: as_text(row[name]) for name in ("url", "description")}
    return values | texts | {"state": int(node.state), "description": texts["description"] or None}


def shown(row: RawRow) -> dict[str, str]:
    """Return the row's cells as text."""
    return {name: as_text(row[name]) for name in COLUMNS}
