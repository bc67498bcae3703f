"""The table and its version: what they must be, creating them, checking what is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from sqlalchemy import (
    CHAR,
    BigInteger,
    Column,
    Connection,
    Integer,
    MetaData,
    Select,
    Table,
    UniqueConstraint,
    false,
    inspect,
    select,
    text,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.exc import IntegrityError
from sqlalchemy.schema import CreateTable
from sqlalchemy.sql import quoted_name

from clusterer.errors import ProvisioningError, SettingsError
from clusterer.settings import Settings

TABLE_VERSION = 1
"""The version that OpenSIPS 2.2's clusterer expects in the version table."""

_VERSION_TABLE = "version"
_NAME_LENGTH = 32
"""Characters of version.table_name: a longer table name cannot be registered there."""

SETTING_OF_COLUMN: Mapping[str, str] = MappingProxyType(
    {
        "id": "clusterer_id_col",
        "cluster_id": "cluster_id_col",
        "machine_id": "machine_id_col",
        "url": "url_col",
        "state": "state_col",
        "last_attempt": "last_attempt_col",
        "failed_attempts": "failed_attempts_col",
        "no_tries": "no_tries_col",
        "duration": "duration_col",
        "description": "description_col",
    }
)
"""Our name of each column → the setting that holds its real name."""


@dataclass(frozen=True, slots=True)
class Schema:
    """The two tables under their configured names; columns have our names as keys."""

    nodes: Table
    versions: Table
    columns: Mapping[str, str]
    """Our name of each column → its real name."""

    def select(self, *names: str) -> Select[Any]:
        """Return a query of these columns of all nodes, or of all columns, in the order of ids."""
        nodes = self.nodes.c
        columns = (nodes[name].label(name) for name in names or self.columns)
        return select(*columns).order_by(nodes.id)


@dataclass(frozen=True, slots=True)
class SchemaReport:
    """The tables and rows that `create` made, because they were missing."""

    table_created: bool
    version_added: bool


def fetch(connection: Connection, query: Select[Any]) -> list[Mapping[str, object]]:
    """Return the rows of a query of `Schema.select`, under our names of the columns."""
    result = connection.execute(query)
    names = list(result.keys())
    return [dict(zip(names, row, strict=True)) for row in result]  # RowMapping takes longer


def build(settings: Settings) -> Schema:
    """Return the tables as configured; `SettingsError` if two names collide or one is too long."""
    columns = {ours: getattr(settings, setting) for ours, setting in SETTING_OF_COLUMN.items()}
    _require_distinct(columns)
    name = settings.db_table
    if name.casefold() == _VERSION_TABLE:
        raise SettingsError("db_table must not be 'version': that table holds the tables' versions")
    if len(name) > _NAME_LENGTH:
        raise SettingsError(f"db_table {name!r} is longer than {_NAME_LENGTH} characters")
    metadata = MetaData()
    return Schema(_node_table(name, columns, metadata), _version_table(metadata), columns)


def _require_distinct(columns: Mapping[str, str]) -> None:
    seen: dict[str, str] = {}
    for ours, real in columns.items():
        setting = SETTING_OF_COLUMN[ours]
        other = seen.setdefault(real.casefold(), setting)
        if other != setting:
            raise SettingsError(f"{other} and {setting} name the same column {real!r}")


def _node_table(name: str, columns: Mapping[str, str], metadata: MetaData) -> Table:
    # 2.2 looks at the types it gets and refuses others, so these are exactly its own.
    flag = Integer().with_variant(mysql.INTEGER(display_width=1), "mysql", "mariadb")
    seconds = BigInteger().with_variant(mysql.BIGINT(unsigned=True), "mysql", "mariadb")

    def named(ours: str) -> quoted_name:
        return quoted_name(columns[ours], quote=True)

    return Table(
        quoted_name(name, quote=True),
        metadata,
        Column(named("id"), Integer, key="id", primary_key=True),
        Column(named("cluster_id"), Integer, key="cluster_id", nullable=False),
        Column(named("machine_id"), Integer, key="machine_id", nullable=False),
        Column(named("url"), CHAR(64), key="url", nullable=False),
        _number(named("state"), flag, "state", 1),
        _number(named("last_attempt"), seconds, "last_attempt", 0),
        _number(named("failed_attempts"), Integer(), "failed_attempts", 3),
        _number(named("no_tries"), Integer(), "no_tries", 0),
        _number(named("duration"), Integer(), "duration", 30),
        Column(named("description"), CHAR(64), key="description", nullable=True),
        UniqueConstraint("cluster_id", "machine_id"),
    )


def _number(name: quoted_name, kind: Integer, key: str, default: int) -> Column[int]:
    return Column(name, kind, key=key, nullable=False, server_default=text(str(default)))


def _version_table(metadata: MetaData) -> Table:
    unsigned = Integer().with_variant(mysql.INTEGER(unsigned=True), "mysql", "mariadb")
    return Table(
        _VERSION_TABLE,
        metadata,
        Column("table_name", CHAR(32), nullable=False, unique=True),
        Column("table_version", unsigned, nullable=False, server_default=text("0")),
    )


def create(connection: Connection, schema: Schema) -> SchemaReport:
    """Create what is missing; what is there stays as it is. Safe to repeat.

    Raises `ProvisioningError` if a table is there that is not ours: of another version, or
    without some of the columns.
    """
    with connection.begin():
        version = _found_version(connection, schema)
        existed = inspect(connection).has_table(schema.nodes.name)
        if existed:
            _require_columns(connection, schema)
        for table in (schema.nodes, schema.versions):
            connection.execute(CreateTable(table, if_not_exists=True))
        if version is None:
            _register(connection, schema)
    return SchemaReport(table_created=not existed, version_added=version is None)


def _register(connection: Connection, schema: Schema) -> None:
    row = {"table_name": schema.nodes.name, "table_version": TABLE_VERSION}
    try:
        with connection.begin_nested():
            connection.execute(schema.versions.insert().values(row))
    except IntegrityError:
        # Another process registered the table at the same moment.
        _found_version(connection, schema)


def require(connection: Connection, schema: Schema) -> None:
    """Raise `ProvisioningError` unless the table is there, complete and of our version.

    A table without a row in the version table counts as ours.
    """
    name = schema.nodes.name
    with connection.begin():
        if not inspect(connection).has_table(name):
            raise ProvisioningError(
                f"there is no table {name!r}: create it with `clusterer init-db`"
            )
        _found_version(connection, schema)
        _require_columns(connection, schema)


def _found_version(connection: Connection, schema: Schema) -> int | None:
    """Return our version if the table is registered with it, None if it is not registered."""
    if not inspect(connection).has_table(_VERSION_TABLE):
        return None
    versions = schema.versions.c
    found = connection.execute(
        select(versions.table_version).where(versions.table_name == schema.nodes.name)
    ).scalar()
    if found is not None and found != TABLE_VERSION:
        raise ProvisioningError(
            f"table {schema.nodes.name!r} has version {found} in the table {_VERSION_TABLE!r}, "
            f"this software needs version {TABLE_VERSION}, OpenSIPS 2.2's: set db_url and db_table "
            "to such a table, or make one with `clusterer init-db`"
        )
    return found


def _require_columns(connection: Connection, schema: Schema) -> None:
    nothing = select(text("*")).select_from(schema.nodes).where(false())
    present = set(map(str.casefold, connection.execute(nothing).keys()))
    missing = [
        f"{real!r} ({SETTING_OF_COLUMN[ours]})"
        for ours, real in schema.columns.items()
        if real.casefold() not in present
    ]
    if missing:
        raise ProvisioningError(
            f"table {schema.nodes.name!r} has no column {', '.join(missing)}: set what stands in "
            "parentheses to the column's real name, or db_table to another table"
        )
