"""The remedies for errors of the database, by their class and number."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from typing import Any

from sqlalchemy import URL

from clusterer.errors import with_causes
from clusterer.provisioning.options import has_tls, problem_of_files

_PACKAGES = {"cryptography": "PyMySQL[rsa]", "pynacl": "clusterer[ed25519]"}
"""The package of PyPI to install, by the package that the driver lacks to authenticate."""

_PERCENT = re.compile("%[0-9A-Fa-f]{2}")
_READ_ONLY = re.compile("read.only", re.IGNORECASE)
_COLUMN = re.compile(r"Incorrect string value: .* for column (?P<column>\S+) at row", re.DOTALL)

_PRIMARY = "the server is read-only: point db_url at the primary"
_BY_NUMBER: Mapping[int, str] = {
    1040: "raise the server's max_connections",
    1044: "GRANT the user of db_url rights on that database",
    1049: "CREATE DATABASE, or correct the database in db_url",
    1203: "raise the server's max_user_connections",
    1792: _PRIMARY,
    1836: _PRIMARY,
    2026: "let the server offer TLS (ssl_cert and ssl_key in its configuration), or db_url not ask",
    3159: "the server demands TLS: leave ssl=false out of db_url, or write ssl=true",
}
_ACCESS_DENIED = 1045
_NOT_REACHED = 2003
_OPTION_PREVENTS = 1290
_WRONG_VALUE = 1366
_MIXED_COLLATIONS = 1267

_CERTIFICATE = (
    "let db_url have the CA's file as ssl_ca, and a host that the certificate names; "
    "ssl_check_hostname=false leaves the name out"
)
_START = "start the database server, or correct host and port in db_url"
_NOT_ENCRYPTED = "if the server or the user demands TLS, leave ssl=false out of db_url"
_ENCRYPTED = (
    "correct user and password in db_url; a user that REQUIREs X509 needs ssl_cert and ssl_key, "
    "one that REQUIREs SSL a server with TLS"
)
_LITERAL = (
    "in mysql:// URLs a % stands for itself, as in OpenSIPS; mysql+pymysql:// takes "
    "percent-encoding"
)


def advice(error: Exception, url: URL, *, table: str, literal: bool) -> str:
    """Return what to do about ``error`` of a MySQL server, or of the way to it; empty if unknown.

    ``table`` is the table's name; ``literal``: whether ``url`` was written as OpenSIPS writes it.
    """
    query = {name: str(value) for name, value in url.query.items()}
    number, text = _number(error), str(getattr(error, "orig", error))
    if not number:
        return _of_client(error, query)
    if number == _ACCESS_DENIED:
        return _of_access(query, literal=literal and bool(_PERCENT.search(str(url.password or ""))))
    if number == _OPTION_PREVENTS:
        return _PRIMARY if _READ_ONLY.search(text) else ""
    if number in {_WRONG_VALUE, _MIXED_COLLATIONS}:
        return _of_character_set(text, number, table)
    refused = any(isinstance(one, ssl.SSLCertVerificationError) for one in with_causes(error))
    found = _BY_NUMBER.get(number, _CERTIFICATE if refused else "")
    return found or (_START if number == _NOT_REACHED else "")


def _of_client(error: Exception, query: Mapping[str, str]) -> str:
    """Return what to do about an error that comes from the driver or the files it reads."""
    if isinstance(error, UnicodeError):
        return "leave charset out of db_url, or write charset=utf8mb4"
    for package, requirement in _PACKAGES.items():
        if f"'{package}' package is required" in str(error):
            return f"pip install '{requirement}'"
    found = problem_of_files(query) if isinstance(error, OSError) else ""
    return f"the option {found}" if found else ""


def _of_access(query: Mapping[str, str], *, literal: bool) -> str:
    if literal:
        return _LITERAL
    return _ENCRYPTED if has_tls(query) else _NOT_ENCRYPTED


def _of_character_set(text: str, number: int, table: str) -> str:
    match = _COLUMN.search(text)
    if number == _WRONG_VALUE and match is None:
        return ""
    named = match["column"].replace("`", "").replace("'", "").rpartition(".")[2] if match else ""
    which = f"column {named}" if named else "a column"
    quoted = table.replace("`", "``")
    return (
        f"the character set of {which} lacks a character: run "
        f"ALTER TABLE `{quoted}` CONVERT TO CHARACTER SET utf8mb4, or write the text without it"
    )


def _number(error: Exception) -> int:
    arguments: Any = getattr(getattr(error, "orig", None), "args", ())
    return arguments[0] if arguments and isinstance(arguments[0], int) else 0
