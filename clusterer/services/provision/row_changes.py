"""What is done to the table: the rows before and after."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from clusterer.membership import Node
from clusterer.provisioning import Machine, machine_of
from clusterer.provisioning.files import COLUMNS
from clusterer.provisioning.rows import RawRow, as_text

Values = Mapping[str, object]
"""What a row holds, by our names of the columns; without its id."""


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
    values: Mapping[Machine, Values] = field(default_factory=dict, repr=False)
    """What is written, by machine."""

    @property
    def every(self) -> tuple[RowChange, ...]:
        """All rows that do not stay as they are."""
        return (*self.added, *self.changed, *self.removed)


def planned(
    database: str,
    table: str,
    found: Iterable[RawRow],
    wanted: Mapping[Machine, Values],
    *,
    remove: Iterable[Machine] = (),
) -> Changes:
    """Return how the ``found`` rows come to hold the values ``wanted``; pure."""
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
    """Return what is written of a good ``row``, of which ``node`` was made: its texts as given."""
    values: dict[str, object] = {name: getattr(node, name) for name in COLUMNS}
    texts = {name: as_text(row[name]) for name in ("url", "description")}
    return values | texts | {"state": int(node.state), "description": texts["description"] or None}


def shown(row: RawRow) -> dict[str, str]:
    """Return the row's cells as people see them."""
    return {name: as_text(row[name]) for name in COLUMNS}
