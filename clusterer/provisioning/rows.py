"""Rows of the table as nodes, or as rejected rows that say what is wrong. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from clusterer.errors import InvalidArgument
from clusterer.ids import MAX_ID
from clusterer.membership import Node, State
from clusterer.membership.columns import StateColumns
from clusterer.provisioning.address import parse_address
from clusterer.provisioning.names import Names

MAX_TIME = 2**53
"""Largest last_attempt, in UNIX seconds: beyond it, Redis's scripts and sorted sets round."""

_LONGEST = 200
"""Characters of a reason that are shown."""

_WHOLE = re.compile(r"[+-]?[0-9]+")
"""A number in a column of text; Python's int takes more forms."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")

RawRow = Mapping[str, object]
"""A row as the database gave it; keys are our names of the columns."""

_RANGES = {
    "id": (1, MAX_ID),
    "cluster_id": (1, MAX_ID),
    "machine_id": (1, MAX_ID),
    "state": (0, 2),
    "last_attempt": (0, MAX_TIME),
    "failed_attempts": (0, MAX_ID),
    "no_tries": (0, MAX_ID),
    "duration": (0, MAX_ID),
}


RowKey = tuple[int, int]
"""cluster_id and machine_id of a row."""


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row that was skipped."""

    id: int | str | None
    """The row's primary key, as text if it is no number."""
    column: str
    """Real name of the column that is wrong."""
    reason: str
    row_key: RowKey | None = field(default=None, compare=False)
    """The key of the row; None if the row has no readable key."""

    def __str__(self) -> str:
        return f"row {self.id}, column {self.column!r}: {self.reason}"


def validate(
    rows: Iterable[RawRow], columns: Mapping[str, str], names: Names
) -> tuple[list[Node], list[RejectedRow]]:
    """Return the nodes of the good rows and a rejection for each bad one, in the table's order.

    ``columns`` maps our names of the columns to the real ones. Only ``names`` is asked for
    something outside: DNS names, all at once. Of several good rows for one node of a cluster
    the first counts.
    """
    parsed = [_parsed(row, columns) for row in rows]
    names.resolve(each[0].host for each in parsed if isinstance(each, tuple) and each[1])
    nodes: dict[RowKey, Node] = {}
    rejected: list[RejectedRow] = []
    for found in parsed:
        result = _placed(*found, columns, names, nodes) if isinstance(found, tuple) else found
        if isinstance(result, RejectedRow):
            rejected.append(result)
        else:
            nodes[result.cluster_id, result.machine_id] = result
    return list(nodes.values()), rejected


def row_key_of(row: RawRow) -> RowKey | None:
    """Return whose row it is, None if that cannot be read."""
    try:
        cluster_id, machine_id = (
            _number(row[name], -MAX_TIME, MAX_TIME) for name in ("cluster_id", "machine_id")
        )
    except InvalidArgument:
        return None
    return cluster_id, machine_id


def state_columns(row: RawRow, columns: Mapping[str, str]) -> StateColumns:
    """Return the state columns of a row; `InvalidArgument` names the column that is wrong."""
    numbers = []
    for name in StateColumns._fields:
        try:
            numbers.append(_number(row[name], *_RANGES[name]))
        except InvalidArgument as error:
            raise InvalidArgument(f"column {columns[name]!r}: {error}") from None
    return StateColumns(*numbers)


def _parsed(row: RawRow, columns: Mapping[str, str]) -> tuple[Node, bool] | RejectedRow:
    """Return the node, and whether its host is a name."""
    column = "id"
    try:
        values: dict[str, Any] = {}
        for column, (low, high) in _RANGES.items():
            values[column] = _number(row[column], low, high)
        column = "url"
        values["url"] = _text(row["url"])
        address = parse_address(values["url"])
        column = "description"
        values["description"] = _CONTROL.sub(" ", as_text(row["description"]))
    except InvalidArgument as error:
        reason = _bounded(str(error))
        return RejectedRow(_shown(row["id"]), columns[column], reason, row_key_of(row))
    values["state"] = State(values["state"])
    node = Node(protocol=address.protocol, host=address.host, port=address.port, **values)
    return node, address.is_name


def _placed(
    node: Node,
    is_name: bool,
    columns: Mapping[str, str],
    names: Names,
    taken: Mapping[RowKey, Node],
) -> Node | RejectedRow:
    row_key = node.cluster_id, node.machine_id
    if is_name:
        if node.host not in names.addresses:
            reason = f"{node.host!r} does not resolve: {names.failures[node.host]}"
            return RejectedRow(node.id, columns["url"], reason, row_key)
        node = replace(node, host=names.addresses[node.host])
    if row_key in taken:
        where = f"in row {taken[row_key].id} already"
        reason = f"doubled: node {node.machine_id} of cluster {node.cluster_id} is {where}"
        return RejectedRow(node.id, columns["machine_id"], reason, row_key)
    return node


def _bounded(reason: str) -> str:
    """Return the reason without most of the value that it quotes, should that be very long."""
    return reason if len(reason) <= _LONGEST else f"{reason[:120]}…{reason[-60:]}"


def _number(value: object, low: int, high: int) -> int:
    if value is None:
        raise InvalidArgument("null")
    number = _written(_text(value)) if isinstance(value, str | bytes) else _whole(value)
    if number is None:
        raise InvalidArgument(f"{value!r} is not a whole number")
    if number < 0 <= low:
        raise InvalidArgument(f"negative: {number}")
    if not low <= number <= high:
        raise InvalidArgument(f"{number} is not from {low} to {high}")
    return number


def _written(text: str) -> int | None:
    return int(text) if len(text) <= _LONGEST and _WHOLE.fullmatch(text) else None


def _whole(value: object) -> int | None:
    try:
        number = int(value)  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError):
        return None
    return int(number) if number == value else None


def as_text(value: object) -> str:
    """Return a cell as text, without what CHAR (blanks) and BINARY columns (NULs) are padded with.

    NULL is empty text.
    """
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return "" if value is None else str(value).rstrip("\0").strip()


def _text(value: object) -> str:
    if value is None:
        raise InvalidArgument("null")
    return as_text(value)


def _shown(value: object) -> int | str | None:
    return value if value is None or isinstance(value, int) else str(value)
