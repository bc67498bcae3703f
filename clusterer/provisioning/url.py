"""``db_url`` in OpenSIPS's form, in SQLAlchemy's, or empty."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlencode

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from clusterer.endpoint.url import percent_hint
from clusterer.errors import SettingsError
from clusterer.provisioning import options
from clusterer.settings import Settings

MYSQL_NAMES = ("mysql", "mariadb")
_DRIVER = "mysql+pymysql"
_SHORTEST = 4
"""Characters of a password that is looked for in texts: shorter ones are parts of many words."""

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
    percent-encoded. The `options` may follow in both forms, for example
    ``?ssl_ca=/etc/ssl/db.pem`` (encrypted, certificate and host name verified). Empty means the
    SQLite file ``clusterer.db`` in the data directory. Raises `SettingsError`; its text never
    holds the password.
    """
    text = settings.db_url.strip()
    if not text:
        return URL.create("sqlite", database=str(settings.data_path / "clusterer.db"))
    if text.startswith(("mysql://", "mariadb://")):
        return _from_opensips(text)
    url = _from_sqlalchemy(text)
    if url is None:
        raise SettingsError(
            "db_url is neither mysql://user:password@host/database nor an SQLAlchemy URL"
        )
    if url.get_backend_name() == "sqlite":
        if url.host or url.username or url.password:
            raise SettingsError("db_url must be like sqlite:////path/to/file, without a host")
    elif _is_torn(text, url):
        raise SettingsError(f"db_url {percent_hint('@')}")
    query = text.rpartition("@")[2].partition("?")[2]
    return _unambiguous(url, query or urlencode(url.query, doseq=True))


def options_of(url: URL) -> dict[str, str]:
    """Return the options of a URL that `database_url` returned: each is given once."""
    return {name: str(value) for name, value in url.query.items()}


def public_name(url: URL) -> str:
    """Return the URL for messages: without password and options.

    A user without a password may be a misplaced password, and is left out too.
    """
    shown = url.set(query={})
    if url.username and url.password is None:
        return shown._replace(username=None).render_as_string().replace("://", "://***@", 1)
    return shown.render_as_string(hide_password=True)


def without_secrets(text: str, url: URL) -> str:
    """Return a driver's ``text`` with *** for what of ``url`` may be a password."""
    secret = url.username if url.password is None else str(url.password)
    return text.replace(secret, "***") if secret and len(secret) >= _SHORTEST else text


def _from_sqlalchemy(text: str) -> URL | None:
    """Return the URL, None if it is not one or of an unknown kind: the errors quote it."""
    try:
        url = make_url(text)
        url.get_dialect()
    except (ArgumentError, ValueError, ImportError):
        return None
    return url


def _is_torn(text: str, url: URL) -> bool:
    """Whether a part of the password looks like host, database or option, because of an @."""
    if "@" in f"{url.host}{url.database}":
        return True
    if not url.username and "@" in text:
        return not any("@" in str(value) for value in url.query.values())
    base, _, query = text.partition("@")[2].partition("?")
    database, options = base.partition("/")[2], query.split("&")
    return "@" in base or (
        "@" in query and not (database and all("=" in option for option in options))
    )


def _unambiguous(url: URL, query: str) -> URL:
    """Return ``url``, whose options are ``query``.

    Raises `SettingsError` if one cannot be, or if an @ makes parts of the URL look like others.
    """
    if "password=" in f"{url.username} {url.password}":
        raise SettingsError(f"db_url {percent_hint('@')}")
    if url.get_driver_name() == "pymysql":
        table = options.MYSQL
    elif url.get_backend_name() == "sqlite":
        table = options.SQLITE
    else:
        return url
    found = table.problem(query) if query else ""
    if not found and table is options.MYSQL:
        found = options.problem_of_tls(options_of(url))
    if found:
        raise SettingsError(f"db_url {found}")
    return url


def _from_opensips(text: str) -> URL:
    match = _OPENSIPS.fullmatch(text)
    # An @ there is the one before the host, of a URL that names no database.
    if match is None or not match["database"] or "@" in match["database"]:
        raise SettingsError("db_url must be like mysql://user:password@host:port/database")
    port = int(match["port"]) if match["port"] else None
    if port is not None and not 1 <= port <= 65535:
        raise SettingsError("db_url has a port that is not from 1 to 65535")
    return _unambiguous(
        URL.create(
            _DRIVER,
            username=match["user"] or None,
            password=match["password"],
            host=(match["host"] or "localhost").strip("[]"),
            port=port,
            database=match["database"],
            query=dict(parse_qsl(match["query"] or "", keep_blank_values=True)),
        ),
        match["query"] or "",
    )
