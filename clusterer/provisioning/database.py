"""The connection to the provisioning database, and the translation of its errors into ours."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from clusterer.errors import DatabaseUnavailable, ProvisioningError
from clusterer.provisioning import schema
from clusterer.provisioning.advice import advice
from clusterer.provisioning.options import driver_arguments
from clusterer.provisioning.replacing import Unconfirmed
from clusterer.provisioning.url import (
    MYSQL_NAMES,
    database_url,
    options_of,
    public_name,
    without_secrets,
)
from clusterer.runtime.once import once
from clusterer.settings import Settings

TIMEOUT_S = 2
"""Longest wait for the server to accept a connection and, again, for each answer. PyMySQL by
itself waits for ever on a server that hangs."""

_SESSION = (
    "SET SESSION innodb_lock_wait_timeout = 1, lock_wait_timeout = 1, "
    "sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES')"
)
"""Waits shorter than `TIMEOUT_S`, so that a locked row or table is told as one and not as a dead
server; and a value that does not fit its column is refused, not stored as another."""

_BARRED = re.compile("unable to open|readonly")
_RIGHTS = {"read": os.R_OK, "write": os.W_OK}


class RowRefused(DatabaseUnavailable):
    """A rule of the table, such as that a node is in a cluster once, forbids what we write."""


class Database:
    """One provisioning database. Each operation opens a connection of its own."""

    def __init__(self, settings: Settings) -> None:
        """Raise `SettingsError` if the URL or the names of table and columns cannot be used."""
        self._settings = settings
        self._url = database_url(settings)
        self.schema = schema.build(settings)
        self.away = False
        """Whether the log has the outage already: the sync job tries every second."""

    @property
    def name(self) -> str:
        """URL for messages, without password and options."""
        return public_name(self._url)

    @contextmanager
    def connection(self, what: str, *, create: bool = False) -> Iterator[Connection]:
        """Open a connection for the time of the block, which commits by itself.

        Without ``create`` an SQLite file must be there: to connect would make an empty one.
        Raises `ProvisioningError`, mostly `DatabaseUnavailable`, that says ``what`` could not be
        done, where and why, after at most some seconds.
        """
        path = self._file
        if path and not create and _is_missing(path):
            raise ProvisioningError(
                f"there is no table {self.schema.nodes.name!r}, nor the file {path}: "
                "create it with `clusterer init-db`"
            )
        try:
            connection = self._engine.connect()
        except UnicodeError:
            # The error's arguments hold the password.
            raise DatabaseUnavailable(
                f"cannot {what}: database {self.name}: user or password has a character that is "
                "not in Latin-1: the driver cannot send it"
            ) from None
        except (SQLAlchemyError, OSError, RuntimeError, ValueError, TypeError) as error:
            raise self._failed(what, error) from error
        try:
            with connection:
                yield connection
        except Unconfirmed as error:
            raise ProvisioningError(
                f"cannot {what}: database {self.name} went away before its answer: the table may "
                "have the change; `clusterer export` shows it, then run `clusterer reload`"
            ) from error
        except SQLAlchemyError as error:
            raise self._failed(what, error) from error
        except UnicodeEncodeError as error:
            if not self._is_mysql:
                raise
            raise self._failed(what, error) from None  # its arguments hold the statement

    @once
    def _engine(self) -> Engine:
        try:
            if not self._settings.db_url.strip():
                self._settings.data_path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise self._failed("use the provisioning database", error) from error
        try:
            # No pool: a connection kept over a fork or an outage does more harm than it saves.
            engine = create_engine(
                _without_options(self._url),
                poolclass=NullPool,
                connect_args=_connect_arguments(self._url),
            )
        except (SQLAlchemyError, ImportError, OSError) as error:
            raise self._failed("use the provisioning database", error) from error
        if engine.dialect.name == "sqlite":
            event.listen(engine, "connect", _take_any_text)
        return engine

    def _failed(self, what: str, error: Exception) -> DatabaseUnavailable:
        kind = RowRefused if isinstance(error, IntegrityError) else DatabaseUnavailable
        reason = without_secrets(_reason(error), self._url)
        text = f"cannot {what}: database {self.name}: {reason}"
        if found := self._advice(error):
            return kind(f"{text} ({found})", advised=True)
        return kind(f"{text}{self._hint(error)}")

    @property
    def _file(self) -> Path | None:
        """The SQLite file, if it is one."""
        name = self._url.database
        if self._url.get_backend_name() != "sqlite" or not name or name == ":memory:":
            return None
        return None if name.startswith("file:") else Path(name)

    def _hint(self, error: Exception) -> str:
        barred = self._file and _BARRED.search(str(error))
        return _sqlite_hint(self._file) if self._file and barred else ""

    def _advice(self, error: Exception) -> str:
        if isinstance(error, ModuleNotFoundError):
            if self._is_mysql:  # modules of other drivers have names of other packages
                return "begin db_url with mysql://, for the driver PyMySQL that clusterer installs"
            return f"install the package {error.name}, or name a MySQL or SQLite database in db_url"
        if not self._is_mysql:
            return ""
        literal = self._settings.db_url.strip().startswith(("mysql://", "mariadb://"))
        return advice(error, self._url, table=self.schema.nodes.name, literal=literal)

    @property
    def _is_mysql(self) -> bool:
        return self._url.get_backend_name() in MYSQL_NAMES


def _take_any_text(connection: Any, _record: object) -> None:
    """Let one cell that is not UTF-8 not make a whole SQLite table unreadable."""
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")


def _is_missing(path: Path) -> bool:
    try:
        return not path.exists()
    except PermissionError:
        return False  # who knows


def _sqlite_hint(path: Path) -> str:
    """Return why the file cannot be used, where SQLite only says that it cannot."""
    if path.parent.is_dir() and not os.access(path.parent, os.X_OK):
        why = f"this user may not enter {path.parent}"
    elif path.is_dir():
        why = "it is a directory"
    elif path.exists():
        lacking = [word for word, mode in _RIGHTS.items() if not os.access(path, mode)]
        why = f"this user may not {lacking[0]} it" if lacking else ""
    elif not path.parent.is_dir():
        why = f"there is no directory {path.parent}"
    else:
        why = "" if os.access(path.parent, os.W_OK) else f"this user may not write to {path.parent}"
    return f" ({why})" if why else ""


def _connect_arguments(url: URL) -> dict[str, Any]:
    """Return our time-outs, except those that the URL sets itself, and the URL's options."""
    backend = url.get_backend_name()
    arguments: dict[str, Any] = {}
    if backend in MYSQL_NAMES:
        arguments = {f"{phase}_timeout": TIMEOUT_S for phase in ("connect", "read", "write")}
        arguments["init_command"] = _SESSION
    elif backend == "sqlite":
        arguments = {"timeout": TIMEOUT_S}
    arguments = {name: value for name, value in arguments.items() if name not in url.query}
    if url.get_driver_name() == "pymysql":
        arguments |= driver_arguments(options_of(url))
    return arguments


def _without_options(url: URL) -> URL:
    """Return ``url`` without the options that `_connect_arguments` takes from it."""
    return url.set(query={}) if url.get_driver_name() == "pymysql" else url


def _reason(error: Exception) -> str:
    """Return the server's own words: SQLAlchemy's would bring the statement and its values."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
    words = [str(argument) for argument in cause.args if isinstance(argument, str)]
    text = words[-1] if words else str(cause)
    return " ".join(text.split()) or type(cause).__name__
