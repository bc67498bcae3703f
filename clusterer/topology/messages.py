"""Messages of the capability `clusterer-internal`, OpenSIPS 3.2 to 4.0. Source: docs/wire3.md.

The source node is not part of a message: it is the packet's ``machine_id``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Self

from clusterer.errors import WireError
from clusterer.topology.fields import Fields, push_ids
from clusterer.topology.nodes import NodeDescription
from clusterer.wire import Packet, PacketBuilder3
from clusterer.wire.layout3 import INTERNAL
from clusterer.wire.reader import FieldReader3

VERSION = 1
"""Version of the capability in all known versions of OpenSIPS."""


class Message(ABC):
    """A message of `clusterer-internal`."""

    __slots__ = ()

    TYPE: ClassVar[int]
    NAME: ClassVar[str]
    """OpenSIPS's name of the message, for logs and errors."""

    def __init_subclass__(cls, type: int | None = None, name: str = "") -> None:
        # A dataclass with slots is made twice, the second time without arguments.
        if type is not None:
            cls.TYPE, cls.NAME = type, name

    def encode(self, cluster_id: int, source: int) -> Packet:
        """Return the packet with which ``source`` sends the message to ``cluster_id``.

        Raises `FrameTooLarge` and, for a number out of range, `InvalidArgument`.
        """
        builder = PacketBuilder3(INTERNAL, self.TYPE, source, VERSION, cluster_id)
        self._push(builder)
        return builder.build()

    @classmethod
    @abstractmethod
    def read(cls, fields: Fields) -> Self:
        """Return the message in ``fields``. Raises `WireError`."""
        ...

    @abstractmethod
    def _push(self, builder: PacketBuilder3) -> None: ...


@dataclass(frozen=True, slots=True)
class Ping(Message, type=0, name="PING"):
    """Asks for a PONG."""

    want_list: bool
    """Whether the PONG is to name the nodes that its sender knows."""

    @classmethod
    def read(cls, fields: Fields) -> Self:
        return cls(fields.flag())

    def _push(self, builder: PacketBuilder3) -> None:
        builder.push_int(int(self.want_list))


@dataclass(frozen=True, slots=True)
class Pong(Message, type=1, name="PONG"):
    """Answers a PING."""

    nodes: tuple[int, ...] = ()
    """Nodes that the sender knows, without itself and the pinging node; empty if not wanted."""

    @classmethod
    def read(cls, fields: Fields) -> Self:
        return cls(fields.ids())

    def _push(self, builder: PacketBuilder3) -> None:
        push_ids(builder, self.nodes)


@dataclass(frozen=True, slots=True)
class LinkUpdate(Message, type=2, name="LS_UPDATE"):
    """The source's link to a neighbour is up, or no longer up. Flooded."""

    seq: int
    timestamp: int
    """UNIX time in seconds; meaningful if ``seq`` is 0."""
    neighbour: int
    up: bool
    path: tuple[int, ...]
    """The nodes that have handled the packet, the source first."""

    @classmethod
    def read(cls, fields: Fields) -> Self:
        seq, timestamp, neighbour = fields.number(), fields.number(), fields.number()
        return cls(seq, timestamp, neighbour, not fields.flag(), fields.ids())

    def _push(self, builder: PacketBuilder3) -> None:
        for number in (self.seq, self.timestamp, self.neighbour, int(not self.up)):
            builder.push_int(number)
        push_ids(builder, self.path)


@dataclass(frozen=True, slots=True)
class NodeEntry:
    """What a `FullTopology` says of one node."""

    node: int
    description: NodeDescription | None
    """None: the receiver knows the node, or it is the source itself."""
    seq: int
    """Number of the node's last `LinkUpdate` that the source knows, -1 if none."""
    timestamp: int
    """Time of that update; 0 in the entry of the source."""
    neighbours: tuple[int, ...]

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """Return the next entry."""
        node = fields.number()
        description = _read_description(fields) if fields.flag() else None
        return cls(node, description, fields.number(), fields.number(), fields.ids())

    def push(self, builder: PacketBuilder3) -> None:
        """Append the entry."""
        builder.push_int(self.node)
        builder.push_int(int(self.description is not None))
        if self.description is not None:
            _push_description(builder, self.description)
        builder.push_int(self.seq)
        builder.push_int(self.timestamp)
        push_ids(builder, self.neighbours)


@dataclass(frozen=True, slots=True)
class FullTopology(Message, type=3, name="FULL_TOP_UPDATE"):
    """All links that the source knows, for a node whose link came up. Flooded."""

    seq: int
    timestamp: int
    """UNIX time in seconds; meaningful if ``seq`` is 0."""
    entries: tuple[NodeEntry, ...]
    """The first is that of the source; the others may be of any node."""
    path: tuple[int, ...]

    @classmethod
    def read(cls, fields: Fields) -> Self:
        seq, timestamp = fields.number(), fields.number()
        return cls(seq, timestamp, fields.items(lambda: NodeEntry.read(fields)), fields.ids())

    def _push(self, builder: PacketBuilder3) -> None:
        for number in (self.seq, self.timestamp, len(self.entries)):
            builder.push_int(number)
        for entry in self.entries:
            entry.push(builder)
        push_ids(builder, self.path)


@dataclass(frozen=True, slots=True)
class UnknownId(Message, type=4, name="UNKNOWN_ID"):
    """Answers a PING of a node that its receiver does not know."""

    @classmethod
    def read(cls, fields: Fields) -> Self:
        return cls()

    def _push(self, builder: PacketBuilder3) -> None:
        pass


@dataclass(frozen=True, slots=True)
class DescriptionUpdate(Message, type=5, name="NODE_DESCRIPTION"):
    """The row of the source, for nodes that do not know it. Flooded."""

    description: NodeDescription
    path: tuple[int, ...]

    @classmethod
    def read(cls, fields: Fields) -> Self:
        return cls(_read_description(fields), fields.ids())

    def _push(self, builder: PacketBuilder3) -> None:
        _push_description(builder, self.description)
        push_ids(builder, self.path)


@dataclass(frozen=True, slots=True)
class CapabilityUpdate(Message, type=9, name="CAP_UPDATE"):
    """Capabilities of the source and of other nodes. Flooded.

    Before 3.2.4 the message has neither number nor time: not supported.
    """

    seq: int
    timestamp: int
    """UNIX time in seconds; meaningful if ``seq`` is 0."""
    nodes: tuple[tuple[int, tuple[tuple[str, bool], ...]], ...]
    """Node, and its capabilities: name and whether the node has all data of it."""
    want_reply: bool
    """Whether the receiver is to answer with its own capabilities."""
    path: tuple[int, ...]

    @classmethod
    def read(cls, fields: Fields) -> Self:
        def capability() -> tuple[str, bool]:
            return fields.text(), fields.flag()

        def node() -> tuple[int, tuple[tuple[str, bool], ...]]:
            return fields.number(), fields.items(capability)

        seq, timestamp, nodes = fields.number(), fields.number(), fields.items(node)
        return cls(seq, timestamp, nodes, fields.flag(), fields.ids())

    def _push(self, builder: PacketBuilder3) -> None:
        for number in (self.seq, self.timestamp, len(self.nodes)):
            builder.push_int(number)
        for node, capabilities in self.nodes:
            builder.push_int(node)
            builder.push_int(len(capabilities))
            for name, ok in capabilities:
                builder.push_str(name)
                builder.push_int(int(ok))
        builder.push_int(int(self.want_reply))
        push_ids(builder, self.path)


_CLASSES: tuple[type[Message], ...] = (
    Ping,
    Pong,
    LinkUpdate,
    FullTopology,
    UnknownId,
    DescriptionUpdate,
    CapabilityUpdate,
)

MESSAGES: Mapping[int, type[Message]] = MappingProxyType({each.TYPE: each for each in _CLASSES})
"""Packet type → class of the message."""


def decode(packet: Packet) -> Message | None:
    """Return the message in a packet of `clusterer-internal`, None for an unknown type or version.

    Raises `WireError`, naming the message, if a field is missing, cut off or invalid, or if bytes
    follow the last field.
    """
    message = MESSAGES.get(packet.type)
    if message is None or packet.version != VERSION:
        return None
    fields = Fields(FieldReader3(packet.payload))
    try:
        made = message.read(fields)
        fields.end()
    except WireError as error:
        raise WireError(f"{message.NAME}: {error}") from error
    return made


def _read_description(fields: Fields) -> NodeDescription:
    return NodeDescription(fields.text(), fields.text(), fields.number(), fields.number())


def _push_description(builder: PacketBuilder3, description: NodeDescription) -> None:
    builder.push_str(description.url)
    builder.push_str(description.sip_addr)
    builder.push_int(description.priority)
    builder.push_int(description.no_ping_retries)
