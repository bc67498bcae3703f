"""Base of all payload messages: strict decoding, encoding, text.

The fields of a message are in wire order. The annotation of a field is its kind on the wire, an
integer or a string; a number packed into a string has its kind as metadata.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import Field, fields
from operator import methodcaller
from struct import Struct
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Self, TypeVar, cast

from clusterer.errors import InvalidArgument, WireError
from clusterer.wire import FieldReader, Packet, PacketBuilder

T = TypeVar("T")
R = TypeVar("R")

VERSION = 1
"""Packet version of all messages of OpenSIPS 2.2's modules."""

POP_STR: Callable[[FieldReader], bytes | None] = methodcaller("pop_str")
"""Reads a str with the method of the reader, whatever its dialect."""

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


INT = Kind(FieldReader.pop_int, _push_int)
STR = Kind(FieldReader.pop_str, _push_str)
_KINDS = {"int": INT, "bytes": STR}
"""By annotation: a signed 32-bit integer, a string of bytes; other kinds are metadata."""

PACKED_32 = _metadata(_packed(Struct("<i")))
"""Metadata of a signed 32-bit number in a str of 4 bytes."""

PACKED_64 = _metadata(_packed(Struct("<q")))
"""Metadata of a signed 64-bit number in a str of 8 bytes."""


class Message:
    """A message of a module, without its sender. Strings are bytes, as on the wire."""

    __slots__ = ()

    MODULE: ClassVar[str]
    TYPE: ClassVar[int]
    NAME: ClassVar[str]
    """Module and message for logs and errors: ``dialog created``."""
    VERSIONS: ClassVar[tuple[int, ...]] = (VERSION,)
    """Packet versions with known fields, in ascending order."""

    def __init_subclass__(
        cls,
        module: str = "",
        type: int | None = None,
        name: str = "",
        versions: tuple[int, ...] = (),
    ) -> None:
        """Set what is given; a subclass inherits the other class variables."""
        given = {
            "MODULE": module or None,
            "TYPE": type,
            "NAME": name or None,
            "VERSIONS": versions or None,
        }
        for variable, value in given.items():
            if value is not None:
                setattr(cls, variable, value)

    @classmethod
    def decode(cls, packet: Packet) -> Self:
        """Return the message in ``packet``, whose module and type are not checked.

        Raises `WireError`, naming message and field, if a field is missing, cut off or invalid,
        or if bytes follow the last field.
        """
        raise NotImplementedError

    def encode(self, machine_id: int) -> Packet:
        """Return the packet with which ``machine_id`` sends this message.

        Raises `InvalidArgument` for a number out of range, and for an empty key where that
        crashes OpenSIPS 2.2.8 (see docs/wire.md); `FrameTooLarge`.
        """
        raise NotImplementedError

    def shown(self) -> dict[str, object]:
        """Return all fields for screens and JSON, with printable text. Never raises."""
        raise NotImplementedError


class FlatMessage(Message):
    """A message with a fixed number of fields: a frozen dataclass with the fields of the wire."""

    __slots__ = ()

    @classmethod
    def decode(cls, packet: Packet) -> Self:
        """Return the message in ``packet``; see `Message.decode`.

        A missing last str reads as empty: 2.2 leaves an empty last str out of the frame.
        """
        reader = packet.fields()
        values: list[int | bytes] = []
        try:
            for _, label, kind, may_be_missing in _layout(cls):
                if may_be_missing and not reader.remaining:
                    values.append(b"")
                else:
                    values.append(cast("int | bytes", pop_field(label, kind.pop, reader)))
        except WireError as error:
            raise WireError(f"{cls.NAME}: {error}") from error
        if reader.remaining:
            raise WireError(f"{cls.NAME}: {reader.remaining} bytes after the last field")
        return cls(*values)

    def encode(self, machine_id: int) -> Packet:
        builder = builder_of(self, machine_id)
        for column, value in zip(_layout(type(self)), self._values(), strict=True):
            try:
                column.kind.push(builder, value)
            except InvalidArgument as error:
                where = f"{self.NAME}: field '{column.label}'"
                raise type(error)(f"{where}: {error}") from error
        return builder.build()

    def shown(self) -> dict[str, object]:
        return {
            column.name: printable(value) if isinstance(value, bytes) else value
            for column, value in zip(_layout(type(self)), self._values(), strict=True)
        }

    def text(self, field: str) -> str:
        """Return a bytes field as text; bytes that are not UTF-8 by surrogateescape."""
        return text_of(self, field, self.NAME)

    def _parsed(self, parse: Callable[[bytes], T], field: str) -> T:
        try:
            return parse(getattr(self, field))
        except WireError as error:
            label = field.replace("_", " ")
            raise WireError(f"{self.NAME}: field '{label}': {error}") from error

    def _values(self) -> list[int | bytes]:
        return [getattr(self, column.name) for column in _layout(type(self))]


class Column(NamedTuple):
    """One field: its name in Python and in errors, and its kind on the wire."""

    name: str
    label: str
    kind: Kind
    may_be_missing: bool = False


_layouts: dict[type[FlatMessage], tuple[Column, ...]] = {}


def _layout(cls: type[FlatMessage]) -> tuple[Column, ...]:
    layout = _layouts.get(cls)
    if layout is None:
        layout = _layouts[cls] = _read_layout(cls)
    return layout


def _read_layout(cls: type[FlatMessage]) -> tuple[Column, ...]:
    columns = [
        Column(field.name, field.name.replace("_", " "), _kind_of(field))
        for field in fields(cls)  # type: ignore[arg-type]  # every FlatMessage is a dataclass
    ]
    last = columns[-1]
    return (*columns[:-1], last._replace(may_be_missing=last.kind is STR))


def _kind_of(field: Field[Any]) -> Kind:
    kind: Kind = field.metadata.get(KIND) or _KINDS[str(field.type)]
    return kind


def pop_field(label: str, pop: Callable[[FieldReader], T | None], reader: FieldReader) -> T:
    """Return the next field; raise `WireError`, naming the field, if it is missing or cut off."""
    try:
        value = pop(reader)
    except WireError as error:
        raise WireError(f"field '{label}': {error}") from error
    if value is None:
        raise WireError(f"ends before field '{label}'")
    return value


def pop_items(
    where: str, item: str, label: str, reader: FieldReader, pop_rest: Callable[[FieldReader], R]
) -> list[tuple[bytes, R]]:
    """Return (name, rest) of all items until nothing is left; ``label`` is the field of the name.

    Raises `WireError` naming ``where``, the item and the field.
    """
    items = []
    while reader.remaining:
        place = where
        try:
            name = pop_field(label, POP_STR, reader)
            place = f"{where}: {item} {name[:40]!r}"
            items.append((name, pop_rest(reader)))
        except WireError as error:
            raise WireError(f"{place}: {error}") from error
    return items


def builder_of(message: Message, machine_id: int) -> PacketBuilder:
    """Return the builder of a packet for ``message``."""
    return PacketBuilder(message.MODULE, message.TYPE, machine_id, VERSION)


def text_of(record: object, field: str, where: str) -> str:
    """Return a bytes field of ``record`` as text; raise `InvalidArgument` for a number."""
    value = getattr(record, field)
    if not isinstance(value, bytes):
        raise InvalidArgument(f"{where}: field {field} must be bytes, not {value!r}")
    return as_text(value)


def as_text(data: bytes) -> str:
    """Return ``data`` as text; `as_bytes` returns the same bytes (surrogateescape)."""
    return data.decode("utf-8", "surrogateescape")


def as_bytes(text: str | bytes) -> bytes:
    """Return the bytes from which `as_text` made ``text``; bytes unchanged."""
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")


def printable(data: bytes) -> str:
    """Return ``data`` as text for every terminal and JSON reader (backslashreplace)."""
    return data.decode("utf-8", "backslashreplace")
