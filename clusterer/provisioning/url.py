"""``db_url`` in OpenSIPS's form, in SQLAlchemy's, or empty."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from clusterer.errors import SettingsError
from clusterer.settings import Settings

_DRIVER = "mysql+pymysql"
_OPENSIPS = re.compile(
    r"(?:mysql|mariadb)://"
    # The last @ ends the password: OpenSIPS takes every character of it for itself, % included.
    r"(?:(?P<user>[^:@/]*)(?::(?P<password>.*))?@)?"
    r"(?P<host>\[[^\]]+\]|[^:/@\[\]]*)(?::(?P<port>[0-9]{1,5}))?"
    r"/(?P<database>[^/?]*)(?:\?(?P<query>.*))?",
    re.DOTALL,
)


def database_url(settings: Settings) -> URL:
    """Return the database's URL as SQLAlchemy takes it.

    ``mysql://user:password@host:port/database`` is read as OpenSIPS reads it: nothing in it is
    percent-encoded. Options may follow in both forms, for example
    ``?ssl_ca=/etc/ssl/db.pem`` (encrypted, certificate and host name verified;
    ``&ssl_check_hostname=false`` leaves the name out), ``ssl_cert``, ``ssl_key``,
    ``unix_socket=/run/mysqld/mysqld.sock``, ``connect_timeout``, ``read_timeout``,
    ``write_timeout`` (seconds). Empty means the SQLite file ``clusterer.db`` in the data
    directory. Raises `SettingsError`; its text never holds the password.
    """
    text = settings.db_url.strip()
    if not text:
        return URL.create("sqlite", database=str(settings.data_path / "clusterer.db"))
    if text.startswith(("mysql://", "mariadb://")):
        return _from_opensips(text)
    try:
        return make_url(text)
    except (ArgumentError, ValueError):
        raise SettingsError(
            "db_url is neither mysql://user:password@host/database nor an SQLAlchemy URL"
        ) from None


def public_name(url: URL) -> str:
    """Return the URL for messages: without password and options."""
    return url.set(query={}).render_as_string(hide_password=True)


def _from_opensips(text: str) -> URL:
    match = _OPENSIPS.fullmatch(text)
    if match is None or not match["database"]:
        raise SettingsError("db_url must be like mysql://user:password@host:port/database")
    port = int(match["port"]) if match["port"] else None
    if port is not None and not 1 <= port <= 65535:
        raise SettingsError(f"db_url: port {port} is not from 1 to 65535")
    return URL.create(
        _DRIVER,
        username=match["user"] or None,
        password=match["password"],
        host=(match["host"] or "localhost").strip("[]"),
        port=port,
        database=match["database"],
        query=dict(parse_qsl(match["query"] or "", keep_blank_values=True)),
    )
