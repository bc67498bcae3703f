"""Base of the messages of OpenSIPS 3.x, whose fields depend on the version of the packet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Self, TypeVar

from clusterer.errors import InvalidArgument, WireError
from clusterer.payloads.message import KIND, Message, pop_field, text_of
from clusterer.payloads.opensips3.kinds import BY_ANNOTATION, Kind3, Kinds
from clusterer.wire import FieldReader, Packet, PacketBuilder3

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Message3(Message):
    """A message of a capability, without sender and cluster."""

    version: int = field(default=1, kw_only=True)
    """Packet version, one of `VERSIONS`; the default is what OpenSIPS 3.6 sends."""

    def encode(self, machine_id: int, cluster_id: int = 1) -> Packet:
        """Return the packet with which ``machine_id`` sends this message to ``cluster_id``.

        Its destination is 0 until the delivery fills it in. Raises `InvalidArgument` for an
        unknown version, a number out of range, or a field that the version does not have;
        `FrameTooLarge`.
        """
        if self.version not in self.VERSIONS:
            raise InvalidArgument(
                f"{self.NAME}: packet version must be one of {self.VERSIONS}, not {self.version!r}"
            )
        builder = PacketBuilder3(self.MODULE, self.TYPE, machine_id, self.version, cluster_id)
        self.push(builder)
        return builder.build()

    def push(self, builder: PacketBuilder3) -> None:
        """Append the fields of the message to ``builder``. Raises `InvalidArgument`."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class FlatMessage3(Message3):
    """A message with one value per field, in the order of the wire but for `AFTER`."""

    AFTER: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """By field: the one that it follows on the wire, where the class has another order."""

    @classmethod
    def decode(cls, packet: Packet) -> Self:
        return cls.read(packet.fields(), packet.version)

    @classmethod
    def read(cls, reader: FieldReader, version: int) -> Self:
        """Return the message whose fields are all that is left in ``reader``. Raises `WireError`.

        A field that ``version`` does not have is None.
        """
        try:
            values = {c.name: _pop(c, reader) for c in _layout(cls, version)}
            require_end(reader)
        except WireError as error:
            raise WireError(f"{cls.NAME}: {error}") from error
        return cls(**values, version=version)

    def push(self, builder: PacketBuilder3) -> None:
        for name, label, kind in _layout(type(self), self.version):
            value = getattr(self, name)
            where = f"{self.NAME}: field '{label}'"
            if kind is not None:
                try:
                    kind.push(builder, value)
                except InvalidArgument as error:
                    raise type(error)(f"{where}: {error}") from error
            elif value is not None:
                raise InvalidArgument(f"{where}: must be None in version {self.version}")

    def shown(self) -> dict[str, object]:
        """Return all fields that the version has, for screens and JSON. Never raises."""
        return {
            name: kind.show(getattr(self, name))
            for name, _, kind in _layout(type(self), self.version)
            if kind is not None
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


def require_end(reader: FieldReader) -> None:
    """Raise `WireError` if anything is left in ``reader``."""
    if reader.remaining:
        raise WireError(f"{reader.remaining} bytes after the last field")


class Column3(NamedTuple):
    """One field: its name in Python and in errors, and its kind in one version."""

    name: str
    label: str
    kind: Kind3 | None
    """None: the version does not have the field."""


_layouts: dict[tuple[type[FlatMessage3], int], tuple[Column3, ...]] = {}


def _layout(cls: type[FlatMessage3], version: int) -> tuple[Column3, ...]:
    layout = _layouts.get((cls, version))
    if layout is None:
        layout = _layouts[cls, version] = _read_layout(cls, version)
    return layout


def _read_layout(cls: type[FlatMessage3], version: int) -> tuple[Column3, ...]:
    columns = {
        field.name: Column3(field.name, field.name.replace("_", " "), _kind_of(field, version))
        for field in fields(cls)
        if field.name != "version"
    }
    order = [name for name in columns if name not in cls.AFTER]
    for name, before in cls.AFTER.items():
        order.insert(order.index(before) + 1, name)
    return tuple(columns[name] for name in order)


def _kind_of(field: Field[Any], version: int) -> Kind3 | None:
    kinds: Kinds | None = field.metadata.get(KIND)
    if kinds is None:
        return BY_ANNOTATION[str(field.type)]
    known = [kind for since, kind in kinds if since <= version]
    return known[-1] if known else None


def _pop(column: Column3, reader: FieldReader) -> Any:
    kind = column.kind
    if kind is None:
        return None
    if not kind.may_be_none:
        return pop_field(column.label, kind.pop, reader)
    try:
        return kind.pop(reader)
    except WireError as error:
        raise WireError(f"field '{column.label}': {error}") from error
