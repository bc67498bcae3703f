"""Messages of the clusterer module of OpenSIPS 3.2 to 4.0 that are not about the topology."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

from clusterer.errors import WireError
from clusterer.payloads.message import POP_STR, as_text, pop_field, printable
from clusterer.payloads.opensips3.chunks import Chunk, pop_chunks, push_chunks
from clusterer.payloads.opensips3.kinds import INT, STRINGS, always, versions
from clusterer.payloads.opensips3.message import FlatMessage3, Message3
from clusterer.wire import FieldReader, FieldReader3, Packet, PacketBuilder3

MODULE = "clusterer-extra"

SYNC_VERSIONS = (2, 3)
"""Until 3.2 nodes send 2, from 3.3 on 3; a node drops data of the other version."""


@dataclass(frozen=True, slots=True)
class RemoveNode(FlatMessage3, module=MODULE, type=6, name="remove node"):
    """An operator removes a node from a cluster that has no table."""

    node: int
    """machine_id of that node."""


@dataclass(frozen=True, slots=True)
class Generic(FlatMessage3, module=MODULE, type=7, name="generic"):
    """A request of a script to the script of another node, or the reply."""

    request: int
    """1 request, 0 reply."""
    tag: bytes
    """The reply has the tag of its request."""
    message: bytes


@dataclass(frozen=True, slots=True)
class MiCommand(FlatMessage3, module=MODULE, type=8, name="mi command"):
    """A management command that the receiver runs without a reply."""

    command: bytes
    parameters: tuple[bytes, ...] = field(default=(), metadata=always(STRINGS))


@dataclass(frozen=True, slots=True)
class SyncMessage(Message3, module=MODULE, versions=SYNC_VERSIONS):
    """A message about the existing data of a capability."""

    version: int = field(default=3, kw_only=True)


@dataclass(frozen=True, slots=True)
class SyncRequest(SyncMessage, FlatMessage3, type=10, name="sync request"):
    """A node asks another one for all data of a capability."""

    capability: bytes


@dataclass(frozen=True, slots=True)
class Sync(SyncMessage, type=11, name="sync"):
    """A part of the data of a capability: whole chunks."""

    capability: bytes
    data_version: int
    """Packet version of the capability."""
    chunks: tuple[Chunk, ...] = ()
    """In the order of the sender. Bytes: a chunk of an unknown capability or version."""

    @classmethod
    def decode(cls, packet: Packet) -> Self:
        reader = FieldReader3(packet.payload)
        try:
            capability = pop_field("capability", POP_STR, reader)
            data_version = pop_field("data version", FieldReader.pop_int, reader)
            chunks = pop_chunks(reader, as_text(capability), data_version)
        except WireError as error:
            raise WireError(f"{cls.NAME}: {error}") from error
        return cls(capability, data_version, chunks, version=packet.version)

    def push(self, builder: PacketBuilder3) -> None:
        builder.push_str(self.capability).push_int(self.data_version)
        push_chunks(builder, as_text(self.capability), self.data_version, self.chunks)

    def shown(self) -> dict[str, object]:
        """Return all fields; a chunk has the name of its message, or its bytes in hexadecimal."""
        return {
            "capability": printable(self.capability),
            "data_version": self.data_version,
            "chunks": [
                chunk.hex()
                if isinstance(chunk, bytes)
                else {"message": chunk.NAME, **chunk.shown()}
                for chunk in self.chunks
            ],
        }


@dataclass(frozen=True, slots=True)
class SyncEnd(SyncMessage, FlatMessage3, type=12, name="sync end"):
    """All chunks of a capability are sent."""

    capability: bytes
    chunk_count: int | None = field(metadata=versions((3, INT)))
    """Chunks in all packets; None in version 2, which does not have it."""


@dataclass(frozen=True, slots=True)
class TagActive(FlatMessage3, module=MODULE, type=13, name="sharing tag active"):
    """A node took a sharing tag over: the tag is backup at all other nodes."""

    tag: bytes
    """Without the cluster_id."""
