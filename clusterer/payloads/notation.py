"""Text formats inside fields: sockets, and the dialog module's profiles and variables."""

from __future__ import annotations

import re
from typing import NamedTuple

from clusterer.errors import WireError

MAX_PORT = 65_535

_SOCKET = re.compile(rb"([A-Za-z0-9_]+):(?:\[([0-9A-Fa-f:.]+)\]|([^\s:\[\]]+)):([0-9]{1,5})")

# Possessive quantifiers: no backtracking, so the time is linear.
_ENTRY = re.compile(rb"((?:[^\\|#]++|\\.)*+)#((?:[^\\|]++|\\.)*+)\|", re.DOTALL)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)


class SocketAddress(NamedTuple):
    """Listening address of a SIP server: ``udp:127.0.0.1:5060``."""

    protocol: str
    host: str
    """Without the brackets of an IPv6 address."""
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.protocol}:{host}:{self.port}"


def parse_socket(data: bytes) -> SocketAddress | None:
    """Return the socket in ``data``, None if it is empty. Raises `WireError` otherwise."""
    if not data:
        return None
    match = _SOCKET.fullmatch(data)
    if match is None or int(match[4]) > MAX_PORT:
        raise WireError(f"{data[:60]!r} must be a socket such as udp:127.0.0.1:5060")
    host = (match[2] or match[3]).decode("utf-8", "surrogateescape")
    return SocketAddress(match[1].decode(), host, int(match[4]))


class Profile(NamedTuple):
    """A dialog profile of a call."""

    name: bytes
    value: bytes
    """Empty for a profile without values."""
    shared: bytes = b""
    """``b``: over BIN, ``s``: in a cache, empty: not shared."""


def parse_pairs(data: bytes) -> tuple[tuple[bytes, bytes], ...]:
    r"""Return the pairs of ``name#value|name#value|`` without their escaping backslashes.

    Raises `WireError` at the first invalid entry. Takes time linear in the length.
    """
    pairs = []
    at = 0
    while at < len(data):
        match = _ENTRY.match(data, at)
        if match is None:
            raise WireError(f"{data[at : at + 40]!r} at {at} must begin with name#value|")
        pairs.append((_ESCAPED.sub(rb"\1", match[1]), _ESCAPED.sub(rb"\1", match[2])))
        at = match.end()
    return tuple(pairs)


def parse_profiles(data: bytes) -> tuple[Profile, ...]:
    """Return the profiles of ``name/b#value|name#value|``. Raises `WireError`."""
    return tuple(_profile(name, value) for name, value in parse_pairs(data))


def _profile(name: bytes, value: bytes) -> Profile:
    for shared in (b"b", b"s"):
        if name.endswith(b"/" + shared):
            return Profile(name[:-2], value, shared)
    return Profile(name, value)
