"""The provisioning database: its URL, its table, and rows read from and written to it."""

from clusterer.provisioning.address import name_in
from clusterer.provisioning.database import Database, RowRefused
from clusterer.provisioning.names import Names
from clusterer.provisioning.replacing import Replacement, replace_rows
from clusterer.provisioning.rows import Machine, RejectedRow, machine_of, validate
from clusterer.provisioning.schema import Schema, SchemaReport, create, require
from clusterer.provisioning.table import (
    NewRow,
    StateUpdate,
    add_rows,
    read_rows,
    read_states,
    try_writing_states,
    write_states,
)

__all__ = [
    "Database",
    "Machine",
    "Names",
    "NewRow",
    "RejectedRow",
    "Replacement",
    "RowRefused",
    "Schema",
    "SchemaReport",
    "StateUpdate",
    "add_rows",
    "create",
    "machine_of",
    "name_in",
    "read_rows",
    "read_states",
    "replace_rows",
    "require",
    "try_writing_states",
    "validate",
    "write_states",
]
