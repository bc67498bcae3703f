"""Add, change and remove rows in one transaction, if no other program changed them meanwhile."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    RootTransaction,
    Select,
    and_,
    delete,
    or_,
    update,
)
from sqlalchemy.exc import DBAPIError

from clusterer.provisioning.rows import RawRow, RowKey, row_key_of
from clusterer.provisioning.schema import Schema, fetch

_FEW = 100
"""Machines that are asked for one by one; of more, all rows are read."""


class Unconfirmed(Exception):
    """The database went away while it was told to commit."""


@dataclass(frozen=True, slots=True)
class Replacement:
    """The changes of the rows of some nodes. Values are under our names of the columns."""

    add: Sequence[Mapping[str, object]] = ()
    change: Sequence[tuple[RowKey, Mapping[str, object]]] = ()
    remove: Collection[RowKey] = ()

    @property
    def row_keys(self) -> set[RowKey]:
        """The keys of all rows concerned."""
        new = {row_key for values in self.add if (row_key := row_key_of(values))}
        return new | {row_key for row_key, _ in self.change} | set(self.remove)


def replace_rows(
    connection: Connection, schema: Schema, wanted: Replacement, *, seen: Sequence[RawRow]
) -> bool:
    """Do what is ``wanted``, all or nothing.

    ``seen`` are the rows of all nodes concerned as they were when this was decided; if they
    are others now, nothing is done and False returned. Raises `Unconfirmed` if it is not known
    whether it is done.
    """
    row_keys = wanted.row_keys
    with connection.begin() as transaction:
        found = _locked(
            connection, schema, row_keys, seen, lock=bool(wanted.change or wanted.remove)
        )
        if [row for row in found if row_key_of(row) in row_keys] != list(seen):
            transaction.rollback()
            return False
        for row_key in wanted.remove:
            connection.execute(delete(schema.nodes).where(_is(schema, row_key)))
        for row_key, values in wanted.change:
            connection.execute(update(schema.nodes).where(_is(schema, row_key)).values(values))
        if wanted.add:
            connection.execute(schema.nodes.insert(), [dict(values) for values in wanted.add])
        _commit(transaction)
    return True


def _locked(
    connection: Connection,
    schema: Schema,
    row_keys: Collection[RowKey],
    seen: Iterable[RawRow],
    *,
    lock: bool,
) -> list[RawRow]:
    """Return the rows of these keys, maybe with others; ``lock`` keeps other programs off them."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # it knows no SELECT … FOR UPDATE
    query = _rows_of(schema, row_keys, seen)
    if lock:
        query = query.with_for_update()
    return fetch(connection, query)


def _rows_of(schema: Schema, row_keys: Collection[RowKey], seen: Iterable[RawRow]) -> Select[Any]:
    if len(row_keys) > _FEW:
        return schema.select()
    with_ids = schema.nodes.c.id.in_([row["id"] for row in seen])
    return schema.select().where(or_(with_ids, *(_is(schema, row_key) for row_key in row_keys)))


def _is(schema: Schema, row_key: RowKey) -> ColumnElement[bool]:
    nodes = schema.nodes.c
    return and_(nodes.cluster_id == row_key[0], nodes.machine_id == row_key[1])


def _commit(transaction: RootTransaction) -> None:
    try:
        transaction.commit()
    except DBAPIError as error:
        if error.connection_invalidated:
            raise Unconfirmed from error
        raise
