"""Checks rows before the write: by the rules of a reload, and by the widths of the columns."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from clusterer.errors import InvalidArgument
from clusterer.membership import State
from clusterer.provisioning.files import COLUMNS, TEXTS
from clusterer.provisioning.names import Names
from clusterer.provisioning.rows import Machine, RawRow, RejectedRow, as_text, machine_of, validate
from clusterer.services.provision.row_changes import Values, values_of

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


class RowsRejected(InvalidArgument):
    """Some rows cannot be used; ``rejected`` has each of them, and nothing was written."""

    def __init__(self, rejected: Sequence[RejectedRow], total: int) -> None:
        super().__init__(f"nothing is imported: {len(rejected)} of {total} rows cannot be used")
        self.rejected = tuple(rejected)


def checked(
    rows: Sequence[RawRow], present: Mapping[Machine, RawRow], names: Names
) -> tuple[dict[Machine, Values], list[RejectedRow]]:
    """Return the values of the good rows, by machine, and a rejection for each bad row.

    The ids of ``rows`` are unique. ``present``: the present rows of these machines; an unchanged
    text need not fit its column.
    """
    nodes, rejected = validate(rows, {name: name for name in ("id", *COLUMNS)}, names)
    given = {row["id"]: row for row in rows}
    good: dict[Machine, Values] = {}
    for node in nodes:
        row, machine = given[node.id], (node.cluster_id, node.machine_id)
        reason = _misfit(row, present.get(machine, {}))
        if reason:
            rejected.append(RejectedRow(node.id, *reason))
        else:
            good[machine] = values_of(node, row)
    return good, sorted(rejected, key=lambda item: str(item.id).zfill(10))


def by_machine(rows: Sequence[RawRow]) -> dict[Machine, RawRow]:
    """Return the rows by machine; the first row of a machine counts."""
    return {machine: row for row in reversed(rows) if (machine := machine_of(row))}


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
