"""Kinds of fields on the wire: integers, strings, and numbers packed into strings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from struct import Struct
from types import MappingProxyType
from typing import NamedTuple

from clusterer.errors import InvalidArgument, WireError
from clusterer.wire import FieldReader, PacketBuilder

KIND = "kind"
"""Key of a `Kind` in a dataclass field's metadata."""


class Kind(NamedTuple):
    """Reader and writer of one kind of field."""

    pop: Callable[[FieldReader], int | bytes | None]
    """Returns None when nothing is left; raises `WireError` for an invalid field."""
    push: Callable[[PacketBuilder, int | bytes], object]


def _packed(layout: Struct) -> Kind:
    """Return the kind of a signed number in a str of fixed length."""

    def pop(reader: FieldReader) -> int | None:
        data = reader.pop_str()
        if data is None:
            return None
        if len(data) != layout.size:
            raise WireError(f"{len(data)} bytes, a packed number has {layout.size}")
        number: int = layout.unpack(data)[0]
        return number

    def push(builder: PacketBuilder, value: int | bytes) -> None:
        limit = 1 << (8 * layout.size - 1)
        if isinstance(value, bool) or not isinstance(value, int) or not -limit <= value < limit:
            raise InvalidArgument(
                f"must be a signed number of {8 * layout.size} bits, not {value!r}"
            )
        builder.push_str(layout.pack(value))

    return Kind(pop, push)


def _push_int(builder: PacketBuilder, value: int | bytes) -> object:
    return builder.push_int(value)  # type: ignore[arg-type]  # raises for anything but an int


def _push_str(builder: PacketBuilder, value: int | bytes) -> object:
    return builder.push_str(value)  # type: ignore[arg-type]  # raises for numbers


def _metadata(kind: Kind) -> Mapping[str, Kind]:
    return MappingProxyType({KIND: kind})


INT = _metadata(Kind(FieldReader.pop_int, _push_int))
"""Metadata of a signed 32-bit integer."""

STR = _metadata(Kind(FieldReader.pop_str, _push_str))
"""Metadata of a string of bytes."""

PACKED_32 = _metadata(_packed(Struct("<i")))
"""Metadata of a signed 32-bit number in a str of 4 bytes."""

PACKED_64 = _metadata(_packed(Struct("<q")))
"""Metadata of a signed 64-bit number in a str of 8 bytes."""
