"""Keys that must not be empty: an empty key crashes OpenSIPS 2.2.8 (SIGSEGV).

Measured, see docs/wire.md. `clusterer.wire` knows nothing else of the modules' payloads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from clusterer.errors import InvalidArgument
from clusterer.wire.layout import INT

VERSION = 1
"""Packet version with known fields; the modules of 2.2 drop packets of other versions."""

_PIPE_BYTES = 4 * INT.size
"""Bytes of a pipe without its name: length of the name, algorithm, limit, counter."""

_EMPTY = bytes(INT.size)
"""An empty str on the wire."""


class Key(NamedTuple):
    """The key of one message."""

    message: str
    """Name of the message, for errors."""
    empty: Callable[[bytes], str | None]
    """Returns the name of the empty key field of a payload, None if no key is empty."""


def _empty_call_id(payload: bytes) -> str | None:
    return "field 'call id'" if payload.startswith(_EMPTY) else None


def _empty_aor(payload: bytes) -> str | None:
    """Check the second str, after the domain. The payload has at least 4 bytes."""
    length: int = INT.unpack_from(payload)[0]
    at = INT.size + length
    return "field 'aor'" if length >= 0 and payload[at : at + INT.size] == _EMPTY else None


def _unnamed_pipe(payload: bytes) -> str | None:
    at, last, number, unpack = 0, len(payload) - INT.size, 1, INT.unpack_from
    while at <= last:
        length: int = unpack(payload, at)[0]
        if length == 0:
            return f"field 'name' of pipe {number}"
        if length < 0:
            break
        at += length + _PIPE_BYTES
        number += 1
    return None


KEYS: Mapping[str, Mapping[int, Key]] = MappingProxyType(
    {
        "ratelimit": {0: Key("pipe counters", _unnamed_pipe)},
        "dialog": {1: Key("created", _empty_call_id), 2: Key("updated", _empty_call_id)},
        "ul": {
            1: Key("record inserted", _empty_aor),
            2: Key("record deleted", _empty_aor),
            3: Key("contact inserted", _empty_aor),
        },
    }
)
"""By module and packet type."""


def require_keys(module: str, kind: int, version: int, payload: bytes) -> None:
    """Raise `InvalidArgument`, naming module, type and field, if a key is an empty string."""
    messages = KEYS.get(module)
    if messages is None or version != VERSION or kind not in messages or _EMPTY not in payload:
        return
    key = messages[kind]
    empty = key.empty(payload)
    if empty is not None:
        raise InvalidArgument(
            f"{module} packet of type {kind} ({key.message}): {empty} is empty, and an empty "
            "key crashes OpenSIPS 2.2.8; give the field a value or leave the packet out"
        )
