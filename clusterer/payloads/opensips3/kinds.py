"""Kinds of fields of OpenSIPS 3.x, and in which packet versions a message has a field."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from clusterer.errors import InvalidArgument, WireError
from clusterer.payloads.message import KIND, PACKED_32, PACKED_64, POP_STR, printable
from clusterer.wire import FieldReader, PacketBuilder


def shown(value: object) -> object:
    """Return a field's value for screens and JSON."""
    if isinstance(value, bytes):
        return printable(value)
    if isinstance(value, tuple):
        return [shown(item) for item in value]
    return value


class Kind3(NamedTuple):
    """Reader and writer of one kind of field, which may have several values on the wire."""

    pop: Callable[[FieldReader], Any]
    """Returns None when nothing is left; raises `WireError` for an invalid field."""
    push: Callable[[PacketBuilder, Any], object]
    """Raises `InvalidArgument` for a value that the field cannot have."""
    show: Callable[[Any], object] = shown
    may_be_none: bool = False
    """True: None is a value, and ``pop`` raises `WireError` when nothing is left."""


Kinds = tuple[tuple[int, Kind3], ...]
"""(first packet version, kind) in ascending order; without a field in older versions."""


def versions(*kinds: tuple[int, Kind3]) -> Mapping[str, Kinds]:
    """Return the metadata of a field that has each of ``kinds`` from a packet version on."""
    return MappingProxyType({KIND: kinds})


def always(kind: Kind3) -> Mapping[str, Kinds]:
    """Return the metadata of a field that has ``kind`` in every version."""
    return versions((0, kind))


def required(value: Any) -> Any:
    """Return what a reader returned; raise `WireError` if nothing was left."""
    if value is None:
        raise WireError("cut off")
    return value


def pop_strings(reader: FieldReader) -> tuple[bytes, ...] | None:
    """Return the strings of a list, None when nothing is left. Raises `WireError`."""
    count = reader.pop_int()
    if count is None:
        return None
    if not 0 <= 2 * count <= reader.remaining:
        raise WireError(f"a list of {count} strings, {reader.remaining} bytes left")
    return tuple([required(reader.pop_str()) for _ in range(count)])


def push_strings(builder: PacketBuilder, strings: Any) -> None:
    """Append a list of strings."""
    if not isinstance(strings, tuple):
        raise InvalidArgument(f"must be a tuple of bytes, not {strings!r:.60}")
    builder.push_int(len(strings))
    for string in strings:
        builder.push_str(string)


def _pop_int(reader: FieldReader) -> int | None:
    return reader.pop_int()


def _push_int(builder: PacketBuilder, value: int) -> object:
    return builder.push_int(value)


def _push_str(builder: PacketBuilder, value: bytes) -> object:
    return builder.push_str(value)


INT = Kind3(_pop_int, _push_int)
STR = Kind3(POP_STR, _push_str)
STRINGS = Kind3(pop_strings, push_strings)
"""int count, then as many str."""
BY_ANNOTATION = {"int": INT, "bytes": STR}

NUMBER_32 = always(Kind3(*PACKED_32[KIND]))
"""Metadata of a signed 32-bit number in a str of 4 bytes."""
NUMBER_64 = always(Kind3(*PACKED_64[KIND]))
"""Metadata of a signed 64-bit number in a str of 8 bytes."""
