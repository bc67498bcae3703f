"""Helpers for tests of the provisioning table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import text, update

from clusterer.provisioning.table import NewRow
from clusterer.services import Context
from clusterer.services.table import init_db
from clusterer.settings import Settings
from clusterer.store import ClusterKey

KEY = ClusterKey(1, "bin")
NODE_A = NewRow(1, 1, "bin:127.0.0.1:5566", description="Node A")
NODE_B = NewRow(1, 2, "bin:127.0.0.2:5566", description="Node B")

MakeContext = Callable[..., Context]


@contextmanager
def contexts(**common: Any) -> Iterator[MakeContext]:
    """Give a factory of contexts; all are closed at the end."""
    made: list[Context] = []

    def make(**changes: Any) -> Context:
        made.append(Context(Settings(**(common | changes))))
        return made[-1]

    yield make
    for context in made:
        context.close()


def provision(context: Context, *rows: NewRow) -> None:
    """Create the table and put ``rows`` into it."""
    init_db.run(context)
    init_db.add(context, rows)


def sql(context: Context, statement: str) -> list[tuple[Any, ...]]:
    """Run a statement as an operator would."""
    opened = context.database.connection("run SQL", create=True)
    with opened as connection, connection.begin():
        found = connection.execute(text(statement))
        return [tuple(row) for row in found] if found.returns_rows else []


def edit(context: Context, machine_id: int, **values: int) -> None:
    """Set columns of a machine's row as an operator, or another machine, would."""
    nodes = context.database.schema.nodes
    with context.database.connection("edit a row") as connection, connection.begin():
        connection.execute(update(nodes).where(nodes.c.machine_id == machine_id).values(values))


def events(context: Context, cluster_id: int = 1) -> list[dict[str, str]]:
    """Return the audit of a cluster."""
    found: Any = context.redis.xrange(f"clusterer:{cluster_id}:events")
    return [{k.decode(): v.decode() for k, v in fields.items()} for _, fields in found]
