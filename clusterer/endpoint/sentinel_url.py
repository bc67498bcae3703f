"""The URL of a Redis that Sentinel watches, in its parts: sentinel://host:port,host:port/service."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlencode

SENTINEL_SCHEMES = ("sentinel", "sentinels")
SENTINEL_PORT = 26379

_FORM = "must be like sentinel://user:password@host:port,host:port/service/database"
_HOST = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]|(?P<name>[\w.-]+))")
_MEMBER = re.compile(_HOST.pattern + r"(?::(?P<port>[0-9]{1,5}))?")
_PATH = re.compile(r"/(?P<service>[A-Za-z0-9._-]+)(?:/(?P<db>[0-9]{0,10}))?")
"""The characters that Sentinel allows in the name of a master."""


@dataclass(frozen=True, slots=True)
class SentinelPlace:
    """The parts of a URL of Sentinel."""

    sentinels: Mapping[str, str] = field(repr=False)
    """``host:port`` of each sentinel → its URL as redis-py reads it."""
    service: str
    redis_url: str = field(repr=False)
    """The URL of a client of Redis; its host is a sentinel's, as the master's is not known."""


def is_sentinel_url(url: str) -> bool:
    """Whether ``url`` names sentinels."""
    return url.partition("://")[0] in SENTINEL_SCHEMES


def _is_ipv6(text: str) -> bool:
    """Whether ``text`` is an IPv6 address, without its brackets."""
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def problem_of_host(match: re.Match[str]) -> str:
    """Return what is wrong with the groups ``six``, an IPv6 address, and ``port`` of a host."""
    if match["six"] is not None and not _is_ipv6(match["six"]):
        return "has an address in [ ] that is no IPv6 address"
    if match["port"] and not 1 <= int(match["port"]) <= 65535:
        return "has a port that is not from 1 to 65535"
    return ""


def problem_of_place(place: str, path: str) -> str:
    """Return what is wrong with the hosts and the path of a URL; empty if nothing is."""
    members = [_MEMBER.fullmatch(member) for member in place.split(",")]
    if None in members:
        return f"{_FORM}, with numbers as ports"
    if found := next(filter(None, map(problem_of_host, filter(None, members))), ""):
        return found
    if _PATH.fullmatch(path) is None:
        return f"{_FORM}: the service is the name after `sentinel monitor` in sentinel.conf"
    return ""


def place_of(url: str) -> SentinelPlace:
    """Return the parts of a URL without a fault."""
    scheme, _, rest = url.partition("://")
    base, _, query = rest.partition("?")
    authority, slash, path = base.partition("/")
    info, at, hosts = authority.rpartition("@")
    found = _PATH.fullmatch(slash + path)
    assert found is not None  # noqa: S101 - `problem_of_place` has found nothing
    options = dict(parse_qsl(query))
    own = {name: options.pop(f"sentinel_{name}", "") for name in ("username", "password")}
    kind = "rediss" if scheme == "sentinels" else "redis"
    tls = {name: value for name, value in options.items() if name.startswith("ssl_")}
    of_sentinels = _query(tls | {name: value for name, value in own.items() if value})
    members = list(map(_with_port, hosts.split(",")))
    database = f"/{found['db']}" if found["db"] else ""
    return SentinelPlace(
        sentinels={member: f"{kind}://{member}{of_sentinels}" for member in members},
        service=found["service"],
        redis_url=f"{kind}://{info}{at}{members[0]}{database}{_query(options)}",
    )


def _query(options: Mapping[str, str]) -> str:
    return f"?{urlencode(options)}" if options else ""


def _with_port(member: str) -> str:
    match = _MEMBER.fullmatch(member)
    return member if match is None or match["port"] else f"{member}:{SENTINEL_PORT}"
