"""Creating the provisioning table, and putting nodes into it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from clusterer.provisioning import NewRow, add_rows, create, require
from clusterer.services.context import Context

EXAMPLE = (
    NewRow(1, 1, "bin:127.0.0.1:5566", description="Node A"),
    NewRow(1, 2, "bin:127.0.0.2:5566", description="Node B"),
)
"""The guide's two nodes, on addresses that every Linux machine has."""


@dataclass(frozen=True, slots=True)
class InitReport:
    """What was there and what was made."""

    database: str
    """URL without password."""
    table: str
    table_created: bool
    version_added: bool
    """Whether the table had to be registered in the version table."""
    rows_added: tuple[NewRow, ...] = ()


def run(context: Context, *, example: bool = False) -> InitReport:
    """Create the table and its version row where missing; ``example`` adds two nodes.

    Safe to repeat: what is there stays. Raises `ProvisioningError` if the database cannot be
    used or holds another version of the table, or one without some of the columns.
    """
    database = context.database
    with database.connection("create the table", create=True) as connection:
        made = create(connection, database.schema)
        added = add_rows(connection, database.schema, EXAMPLE) if example else []
    return InitReport(
        database=database.name,
        table=context.settings.db_table,
        table_created=made.table_created,
        version_added=made.version_added,
        rows_added=tuple(added),
    )


def add(context: Context, rows: Iterable[NewRow]) -> tuple[NewRow, ...]:
    """Provision nodes; returns those whose machine was not in its cluster yet, now added.

    Raises `ProvisioningError` if the database or its table cannot be used.
    """
    database = context.database
    with database.connection("add nodes") as connection:
        require(connection, database.schema)
        return tuple(add_rows(connection, database.schema, rows))
