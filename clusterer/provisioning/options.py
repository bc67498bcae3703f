"""The options of db_url, and what of them the driver PyMySQL gets.

PyMySQL takes every text for true, "false" as well, and verifies nothing unless it has a CA, so the
options for TLS are put into its terms here.
"""

from __future__ import annotations

import codecs
import ssl
from collections.abc import Mapping
from typing import Any

from clusterer.endpoint.options import (
    FLAG,
    OURS,
    SECONDS,
    TEXT,
    WORD,
    Kind,
    Options,
    one_of,
    tls_problem,
    truth,
    whole,
)


def _is_charset(value: str) -> bool:
    from pymysql.charset import charset_by_name  # noqa: PLC0415 - only for a URL with this option

    found: Any = charset_by_name(value)
    try:
        return bool(found and codecs.lookup(found.encoding))
    except LookupError:
        return False


_TEXTS = ("unix_socket", "bind_address", "program_name", "sql_mode")
_FILES: Mapping[str, str] = {
    "cafile": "ssl_ca",
    "capath": "ssl_capath",
    "certfile": "ssl_cert",
    "keyfile": "ssl_key",
    "password": "ssl_key_password",
    "ciphers": "ssl_cipher",
}
_TLS_FLAGS = ("ssl", "ssl_disabled", "ssl_check_hostname", "ssl_verify_cert", "ssl_verify_identity")

_ASKED = "it is ssl=true (encrypted), or ssl_ca=FILE (and verified)"
_MODES = (
    "REQUIRED is ssl=true, VERIFY_CA is ssl_ca=FILE&ssl_check_hostname=false, "
    "VERIFY_IDENTITY is ssl_ca=FILE, DISABLED is ssl=false"
)
_FILED = "let CLUSTERER_DB_URL_FILE name a file that holds db_url"
_BEFORE = "write it before the ?, as in mysql://user:password@host:port/database"

MYSQL = Options(
    {
        **dict.fromkeys((*_TEXTS, *_FILES.values()), TEXT),
        **dict.fromkeys(_TLS_FLAGS, FLAG),
        **dict.fromkeys(("connect_timeout", "read_timeout", "write_timeout"), SECONDS),
        "charset": Kind("a character set that MySQL and Python have, such as utf8mb4", _is_charset),
        "collation": WORD,
        "max_allowed_packet": whole(1024, 2**30),
    },
    {
        **dict.fromkeys(("ssl_mode", "sslmode"), _MODES),
        **dict.fromkeys(("tls", "use_ssl", "usessl", "use_tls", "requiressl"), _ASKED),
        **dict.fromkeys(("require_ssl", "ssl_enabled", "secure", "encrypt"), _ASKED),
        **dict.fromkeys(("sslca", "ssl_ca_certs", "ssl_cafile", "sslrootcert"), "it is ssl_ca"),
        **dict.fromkeys(("tls_ca", "ca"), "it is ssl_ca"),
        **dict.fromkeys(("sslcert", "ssl_certfile", "tls_cert"), "it is ssl_cert"),
        **dict.fromkeys(("sslkey", "ssl_keyfile", "tls_key"), "it is ssl_key"),
        "ssl_password": "it is ssl_key_password",
        "ssl_ciphers": "it is ssl_cipher",
        **dict.fromkeys(("ssl_verify", "verify"), "it is ssl_verify_cert"),
        "socket": "it is unix_socket",
        "timeout": "it is connect_timeout, read_timeout and write_timeout",
        **dict.fromkeys(("encoding", "character_set", "characterencoding"), "it is charset"),
        **dict.fromkeys(("init_command", "client_flag", "local_infile", "use_unicode"), OURS),
        **dict.fromkeys(("autocommit", "cursorclass", "conv", "defer_connect"), OURS),
        **dict.fromkeys(("auth_plugin_map", "server_public_key", "binary_prefix"), OURS),
        **dict.fromkeys(("compress", "named_pipe"), "the driver does not have it: leave it out"),
        **dict.fromkeys(("read_default_file", "read_default_group"), _FILED),
        **dict.fromkeys(("pool_size", "pool_recycle", "max_overflow"), OURS),
        **dict.fromkeys(("user", "username", "host", "port", "database", "db"), _BEFORE),
        **dict.fromkeys(("password", "passwd"), _BEFORE),
    },
)
SQLITE = Options(
    {
        "timeout": SECONDS,
        **dict.fromkeys(("uri", "immutable", "nolock", "psow"), FLAG),
        "mode": one_of("ro", "rw", "rwc", "memory"),
        "cache": one_of("shared", "private"),
        "vfs": WORD,
    },
    dict.fromkeys(("isolation_level", "check_same_thread", "detect_types"), OURS),
)


def problem_of_tls(query: Mapping[str, str]) -> str:
    """Return which options for TLS contradict each other, in words that follow "db_url"."""
    if query.get("ssl_key") and not query.get("ssl_cert"):
        return "has the option ssl_key without ssl_cert after the ?"
    others = [name for name in query if name.startswith("ssl_") and name != "ssl_disabled"]
    if _is_disabled(query) and (others or truth(query.get("ssl", ""))):
        return (
            f"has options after the ? that contradict each other: no TLS, and {[*others, 'ssl'][0]}"
        )
    return ""


def problem_of_files(query: Mapping[str, str]) -> str:
    """Return which file or cipher that ``query`` names cannot be used; empty if all can."""
    return tls_problem(query, _FILES)


def has_tls(query: Mapping[str, str]) -> bool:
    """Whether a connection may use TLS, be it only if the server offers it."""
    return not _is_disabled(query)


def driver_arguments(query: Mapping[str, str]) -> dict[str, Any]:
    """Return PyMySQL's arguments for the options ``query``, which `MYSQL` accepts."""
    arguments: dict[str, Any] = {}
    for name, value in query.items():
        kind = MYSQL.known[name]
        if kind is SECONDS:
            arguments[name] = float(value)
        elif name == "max_allowed_packet":
            arguments[name] = int(value)
        elif not name.startswith("ssl"):
            arguments[name] = value
    if _is_disabled(query):
        return {**arguments, "ssl_disabled": True}
    secured = _secured(query)
    return {**arguments, "ssl": secured} if secured else arguments


def _is_disabled(query: Mapping[str, str]) -> bool:
    return truth(query.get("ssl_disabled", "")) or not truth(query.get("ssl", "true"))


def _secured(query: Mapping[str, str]) -> dict[str, Any]:
    """Return PyMySQL's ``ssl``, which makes it insist on TLS; empty without an option for TLS."""
    own = {"cert": "ssl_cert", "key": "ssl_key", "password": "ssl_key_password"}
    files = {part: query[name] for part, name in own.items() if name in query}
    files |= {"cipher": query["ssl_cipher"]} if "ssl_cipher" in query else {}
    trusted = {part: query[f"ssl_{part}"] for part in ("ca", "capath") if f"ssl_{part}" in query}
    named = truth(query.get("ssl_verify_identity", query.get("ssl_check_hostname", "true")))
    asked = truth(query.get("ssl_verify_identity", ""))
    verified = asked or truth(query.get("ssl_verify_cert", "true" if trusted else "false"))
    if verified:
        trusted = trusted or _system_trusts()
        return {**files, **trusted, "verify_mode": True, "check_hostname": named}
    if files or trusted or truth(query.get("ssl", "")):
        return {**files, "verify_mode": False, "check_hostname": False}
    return {}


def _system_trusts() -> dict[str, Any]:
    paths = ssl.get_default_verify_paths()
    found = {"ca": paths.cafile, "capath": paths.capath}
    return {part: path for part, path in found.items() if path}
