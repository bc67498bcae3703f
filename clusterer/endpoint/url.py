"""The URL of Redis: what is wrong with one, and what of it messages may show.

redis-py's own errors quote the URL, and a character that means something in URLs makes a part of
a password look like a port or an option. Nothing here repeats more than scheme, host, port and
database, and these only of a URL without a fault.
"""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import parse_qsl, quote

from clusterer.endpoint import redis_options
from clusterer.endpoint.sentinel_url import SENTINEL_SCHEMES, problem_of_host, problem_of_place
from clusterer.errors import SettingsError
from clusterer.settings import Settings

SCHEMES = ("redis", "rediss", "unix", *SENTINEL_SCHEMES)

_CLUSTER = re.compile(r"rediss?[+-]?clusters?|(?:redis[+-])?clusters?")
_NO_CLUSTER = (
    "names a Redis Cluster, which is not supported: RQ's workers crash on Redis Cluster. "
    "Use a single server (redis://) or Sentinel (sentinel://)"
)
_SEVERAL = (
    "has several hosts: sentinel://host:port,host:port/service has those of sentinels; "
    "Redis Cluster is not supported, as RQ's workers crash on it"
)

_PLACE = re.compile(
    r"(?:\[(?P<six>[0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]|[\w.-]*)(?::(?P<port>[0-9]{0,5}))?"
)
_PATH = re.compile(r"/?|/[0-9]{1,10}/?")
"""redis-py takes database 0 for a name, and database 12 for ``/1/2``, without a word."""


def redis_url(settings: Settings) -> str:
    """Return the URL of Redis: the configured one, else the embedded server's socket."""
    return settings.redis_url or f"unix://{quote(str(settings.redis_socket))}"


def check_url(url: str) -> None:
    """Raise `SettingsError`, without a secret of ``url``, if it cannot be used.

    The files that its options name are read.
    """
    problem = _problem(url)
    if problem:
        raise SettingsError(f"redis_url {problem}")
    if url.startswith(("rediss://", "sentinels://")):
        problem = redis_options.problem_of_files(_parts(url)[2])
        if problem:
            raise SettingsError(f"redis_url {problem}")


def public_url(settings: Settings) -> str:
    """Return the URL of Redis for messages: without user, password and options."""
    url = redis_url(settings)
    scheme = url.partition("://")[0]
    if _problem(url):
        return f"{scheme}://***" if scheme in SCHEMES else "redis_url"
    authority, path, query = _parts(url)
    if scheme in {"redis", "rediss"} and not path.removeprefix("/").isdecimal():
        path = ""
    database = dict(parse_qsl(query)).get("db", "")
    shown = f"?db={database}" if database.isdecimal() else ""
    info, _, place = authority.rpartition("@")
    return f"{scheme}://{_public_user(info)}{place}{path}{shown}"


def percent_hint(character: str) -> str:
    """Return what to do about a ``character`` of a password that means something in URLs."""
    code = "".join(f"%{byte:02X}" for byte in character.encode())
    return (
        f"cannot be read: write {character} in user or password percent-encoded, "
        f"as {code}, and / ? # [ ] @ % likewise"
    )


def _public_user(info: str) -> str:
    if not info:
        return ""
    # A user may be a misplaced password, or the part of one before its colon.
    return ":***@" if info.startswith(":") else "***@"


def _parts(url: str) -> tuple[str, str, str]:
    """Return user, host and port; the path with its /; the options."""
    base, _, query = url.partition("://")[2].partition("?")
    authority, slash, path = base.partition("/")
    return authority, slash + path, query


def _problem(url: str) -> str:
    """Return what is wrong with ``url`` in words that follow "redis_url"; empty if nothing is."""
    scheme, separator, rest = url.partition("://")
    if separator and _CLUSTER.fullmatch(scheme):
        return _NO_CLUSTER
    if not separator or scheme not in SCHEMES:
        return "must begin with redis://, rediss://, unix://, sentinel:// or sentinels://"
    if "#" in rest:
        return percent_hint("#")
    authority, path, query = _parts(url)
    if "?" in rest and (found := _problem_of_options(scheme, query)):
        return found
    info, at, place = authority.rpartition("@")
    if "@" in path and not (scheme == "unix" and (at or not authority)):
        return percent_hint("/")
    return _problem_of_user(info) or (
        problem_of_place(place, path)
        if scheme in SENTINEL_SCHEMES
        else _problem_of_place(scheme, place) or _problem_of_path(scheme, path)
    )


def _problem_of_options(scheme: str, query: str) -> str:
    found = redis_options.OPTIONS[scheme].problem(query)
    return percent_hint("?") if found and "@" in query else found


def _problem_of_user(info: str) -> str:
    for character in info:
        # urllib refuses letters that become one of these when they are normalised.
        plain = unicodedata.normalize("NFKC", character)
        if character in "[]" or (plain != character and set(plain) & set("/?#@:")):
            return percent_hint(character)
    return ""


def _problem_of_place(scheme: str, place: str) -> str:
    if scheme == "unix":
        return "must be like unix:///path/to/socket" if place else ""
    if "," in place:
        return _SEVERAL
    match = _PLACE.fullmatch(place)
    if match is None:
        return "must be like redis://user:password@host:port/database, with a number as port"
    return problem_of_host(match)


def _problem_of_path(scheme: str, path: str) -> str:
    if scheme != "unix" and _PATH.fullmatch(path) is None:
        return "has a database after host and port that is not a whole number"
    return ""
