"""Text formats inside the fields of OpenSIPS 3.x: variables, profiles and sockets of a call."""

from __future__ import annotations

import re
from typing import NamedTuple

from clusterer.errors import WireError
from clusterer.payloads.notation import Profile, SocketAddress, parse_socket

# Possessive quantifiers: no backtracking beyond the digit, so the time is linear.
_ENTRY = re.compile(
    rb"((?:[^\\|#]++|\\.)*+)#(?:([0-9])#)?((?:[^\\|#]++|\\.)*+)\|",
    re.DOTALL,
)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_NUMBER = re.compile(rb"-?[0-9]{1,20}")
_TAGGED = re.compile(rb"([A-Za-z0-9_]+):([^\s:\[\]]+)")

TEXT, NUMBER = 1, 2
"""Types of a value, on the wire as an integer and in the notation as a digit."""


class Variable(NamedTuple):
    """A variable of a call."""

    name: bytes
    value: bytes | int
    """An int only in the notation with types, from 3.4.0 on."""


class TaggedSocket(NamedTuple):
    """A listening address that both nodes know by a tag: ``udp:main``."""

    protocol: str
    tag: str

    def __str__(self) -> str:
        return f"{self.protocol}:{self.tag}"


def parse_variables(data: bytes) -> tuple[Variable, ...]:
    r"""Return the variables of ``name#value|``, or of ``name#type#value|`` (from 3.4.0 on).

    The backslashes before ``|``, ``#`` and ``\`` are left out. Raises `WireError` at the first
    invalid entry. Takes time linear in the length.
    """
    variables = []
    at = 0
    while at < len(data):
        match = _ENTRY.match(data, at)
        if match is None:
            raise WireError(
                f"{data[at : at + 40]!r} at {at} must begin with name#value| or name#type#value|"
            )
        name, kind, value = match.groups()
        variables.append(Variable(_plain(name), _value(kind, _plain(value))))
        at = match.end()
    return tuple(variables)


def _plain(text: bytes) -> bytes:
    return _ESCAPED.sub(rb"\1", text)


def _value(kind: bytes | None, text: bytes) -> bytes | int:
    if kind is None or int(kind) != NUMBER:
        return text
    if not _NUMBER.fullmatch(text):
        raise WireError(f"{text[:40]!r} must be a number")
    return int(text)


def parse_profiles(data: bytes) -> tuple[Profile, ...]:
    """Return the profiles of ``name/b#value|`` or ``name/b#1#value|``. Raises `WireError`."""
    return tuple([_profile(*variable) for variable in parse_variables(data)])


def _profile(name: bytes, value: bytes | int) -> Profile:
    if not isinstance(value, bytes):
        raise WireError(f"value of profile {name[:40]!r} must be text, not a number")
    for shared in (b"b", b"s"):
        if name.endswith(b"/" + shared):
            return Profile(name[:-2], value, shared)
    return Profile(name, value)


def parse_any_socket(data: bytes) -> SocketAddress | TaggedSocket | None:
    """Return the address or the tag of the socket in ``data``, None if it is empty.

    Raises `WireError` otherwise.
    """
    match = _TAGGED.fullmatch(data)
    if match is None:
        return parse_socket(data)
    return TaggedSocket(match[1].decode(), match[2].decode("utf-8", "surrogateescape"))
