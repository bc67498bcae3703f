"""Creates the provisioning table, and adds nodes to the table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from clusterer.provisioning.schema import create, require
from clusterer.provisioning.table import NewRow, add_rows
from clusterer.services.context import Context

EXAMPLE = (
    NewRow(1, 1, "bin:127.0.0.1:5566", description="Node A"),
    NewRow(1, 2, "bin:127.0.0.2:5566", description="Node B"),
)
"""The guide's two nodes, on addresses that every Linux host has."""


@dataclass(frozen=True, slots=True)
class InitReport:
    """The table and the rows that were added."""

    database: str
    """URL without password."""
    table: str
    table_created: bool
    version_added: bool
    """Whether `run` registered the table in the version table."""
    rows_added: tuple[NewRow, ...] = ()


def run(context: Context, *, example: bool = False) -> InitReport:
    """Create the table and its version row where missing; ``example`` adds two nodes.

    Safe to repeat: an existing table and its rows stay as they are. Raises `ProvisioningError` if
    the database cannot be used, or if the table has another version or lacks columns.
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
    """Add the rows whose machine_id is not in its cluster yet; return the added rows.

    Raises `ProvisioningError` if the database or its table cannot be used.
    """
    database = context.database
    with database.connection("add nodes") as connection:
        require(connection, database.schema)
        return tuple(add_rows(connection, database.schema, rows))
