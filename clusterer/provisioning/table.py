"""Rows of the table: reading, adding, and writing the columns that persistent mode keeps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, cast

from sqlalchemy import ColumnElement, Connection, and_, false, or_, select, update

from clusterer.membership import Node, State
from clusterer.membership.columns import StateColumns
from clusterer.provisioning.rows import RawRow
from clusterer.provisioning.schema import Schema, fetch

_BATCH = 500
"""Rows per transaction or IN list: bounds how long rows stay locked."""


@dataclass(frozen=True, slots=True)
class NewRow:
    """A node to be provisioned."""

    cluster_id: int
    machine_id: int
    url: str
    state: State = State.UP
    failed_attempts: int = 3
    duration: int = 30
    """Seconds."""
    description: str = ""


@dataclass(frozen=True, slots=True)
class StateUpdate:
    """A node whose state columns are to be written, if the table still has what we expect."""

    node: Node
    expected: frozenset[StateColumns]
    """The state columns that our own jobs may have written to the row."""


def read_rows(connection: Connection, schema: Schema) -> list[RawRow]:
    """Return all rows in the order of their ids, unchecked."""
    with connection.begin():
        return fetch(connection, schema.select())


def add_rows(connection: Connection, schema: Schema, rows: Iterable[NewRow]) -> list[NewRow]:
    """Insert those ``rows`` whose node is not in its cluster yet; return them."""
    nodes = schema.nodes.c
    with connection.begin():
        found = connection.execute(select(nodes.cluster_id, nodes.machine_id))
        present = {(row[0], row[1]) for row in found}
        new = [row for row in rows if (row.cluster_id, row.machine_id) not in present]
        if new:
            connection.execute(schema.nodes.insert(), [_values(row) for row in new])
    return new


def _values(row: NewRow) -> dict[str, Any]:
    return asdict(row) | {"state": int(row.state), "last_attempt": 0, "no_tries": 0}


def write_states(
    connection: Connection, schema: Schema, updates: Sequence[StateUpdate]
) -> list[StateUpdate]:
    """Write the state columns of each node whose row still is what we expect.

    Returns the updates whose row another program edited or removed; these rows stay as they are.
    """
    missed: list[StateUpdate] = []
    # All jobs use one order: two jobs at the same time cannot lock each other out.
    pending = iter(sorted(updates, key=lambda item: item.node.id))
    while batch := list(islice(pending, _BATCH)):
        with connection.begin():
            missed += [item for item in batch if not _write(connection, schema, item)]
    return missed


def try_writing_states(connection: Connection, schema: Schema) -> None:
    """Raise what the database says if it does not let us write state columns. Changes no row."""
    nodes = schema.nodes.c
    same = {name: nodes[name] for name in StateColumns._fields}
    with connection.begin():
        connection.execute(update(schema.nodes).where(false()).values(same))


def _write(connection: Connection, schema: Schema, item: StateUpdate) -> bool:
    nodes, wanted = schema.nodes.c, StateColumns.of(item.node)
    accepted = or_(*(_holds(schema, columns) for columns in sorted(item.expected | {wanted})))
    statement = (
        update(schema.nodes)
        .where(
            nodes.id == item.node.id,
            nodes.cluster_id == item.node.cluster_id,
            nodes.machine_id == item.node.machine_id,
            accepted,
        )
        .values(wanted._asdict())
    )
    return connection.execute(statement).rowcount == 1


def _holds(schema: Schema, columns: StateColumns) -> ColumnElement[bool]:
    nodes = schema.nodes.c
    return and_(
        nodes.state == columns.state,
        nodes.no_tries == columns.no_tries,
        nodes.last_attempt == columns.last_attempt,
    )


def read_states(
    connection: Connection, schema: Schema, nodes: Iterable[Node]
) -> Mapping[int, RawRow]:
    """Return id → state columns, unchecked, of those ``nodes`` whose row still is theirs."""
    wanted = {node.id: node for node in nodes}
    query = schema.select("id", "cluster_id", "machine_id", *StateColumns._fields)
    found: dict[int, RawRow] = {}
    ids = iter(sorted(wanted))
    while batch := list(islice(ids, _BATCH)):
        with connection.begin():
            rows = fetch(connection, query.where(schema.nodes.c.id.in_(batch)))
        for row in rows:
            node = wanted[cast(int, row["id"])]
            if (row["cluster_id"], row["machine_id"]) == (node.cluster_id, node.machine_id):
                found[node.id] = row
    return found
