"""Chunks of a sync: what a joining node gets of a capability's data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from clusterer.errors import InvalidArgument, WireError
from clusterer.payloads.message import pop_field
from clusterer.payloads.opensips3 import cachedb, dialog, usrloc
from clusterer.payloads.opensips3.cachedb import CacheSet
from clusterer.payloads.opensips3.destinations import (
    DISPATCHER,
    DROUTING,
    LOAD_BALANCER,
    BalancedStatus,
    CarrierStatus,
    DispatcherState,
    GatewayStatus,
)
from clusterer.payloads.opensips3.dialog import DialogCreated
from clusterer.payloads.opensips3.message import FlatMessage3
from clusterer.payloads.opensips3.usrloc import ContactInserted, RecordInserted
from clusterer.wire import FieldReader, FieldReader3, PacketBuilder3

MARK = 101010101
"""Second integer of each chunk, after its length."""

Chunk = FlatMessage3 | bytes
"""A message, or the bytes of a chunk whose capability or version is unknown."""


class _Chunks(NamedTuple):
    """The chunks of one capability."""

    versions: tuple[int, ...]
    """Known versions of the data."""
    messages: Mapping[int | None, type[FlatMessage3]]
    """Class by the first field, which is an integer; by None if a chunk has no such field."""


_KNOWN: Mapping[str, _Chunks] = MappingProxyType(
    {
        dialog.MODULE: _Chunks(dialog.VERSIONS, {None: DialogCreated}),
        usrloc.MODULE: _Chunks(usrloc.VERSIONS, {0: RecordInserted, 1: ContactInserted}),
        cachedb.MODULE: _Chunks((1,), {None: CacheSet}),
        DISPATCHER: _Chunks((1,), {None: DispatcherState}),
        DROUTING: _Chunks((1,), {0: CarrierStatus, 1: GatewayStatus}),
        LOAD_BALANCER: _Chunks((1,), {None: BalancedStatus}),
    }
)
"""By capability."""


def pop_chunks(reader: FieldReader3, capability: str, version: int) -> tuple[Chunk, ...]:
    """Return the chunks until nothing is left. Raises `WireError`, with the number of the chunk."""
    chunks: list[Chunk] = []
    while reader.remaining:
        where = f"chunk {len(chunks) + 1}"
        try:
            chunks.append(_read(capability, version, _pop_bytes(reader)))
        except WireError as error:
            raise WireError(f"{where}: {error}") from error
    return tuple(chunks)


def _pop_bytes(reader: FieldReader3) -> bytes:
    size = pop_field("length", FieldReader.pop_int, reader)
    if pop_field("mark", FieldReader.pop_int, reader) != MARK:
        raise WireError(f"field 'mark' must be {MARK}")
    return reader.pop_bytes(size)


def _read(capability: str, version: int, data: bytes) -> Chunk:
    """Return the message in ``data``, or ``data`` if capability or version is unknown."""
    known = _KNOWN.get(capability)
    if known is None or version not in known.versions:
        return data
    reader = FieldReader3(data)
    kind = None if None in known.messages else pop_field("kind", FieldReader.pop_int, reader)
    message = known.messages.get(kind)
    if message is None:
        raise WireError(f"field 'kind' is {kind}, which is unknown")
    return message.read(reader, version)


def push_chunks(
    builder: PacketBuilder3, capability: str, version: int, chunks: Iterable[Chunk]
) -> None:
    """Append ``chunks``. Raises `InvalidArgument` for one of another capability or version."""
    for chunk in chunks:
        data = chunk if isinstance(chunk, bytes) else _bytes(capability, version, chunk)
        builder.push_int(len(data)).push_int(MARK)
        builder.push_bytes(data)


def _bytes(capability: str, version: int, message: FlatMessage3) -> bytes:
    known = _KNOWN.get(capability, _Chunks((), {}))
    kinds = [kind for kind, of in known.messages.items() if type(message) is of]
    if not kinds or version not in known.versions or message.version != version:
        raise InvalidArgument(
            f"{message!r:.60} of version {message.version} is no chunk of {capability} {version}"
        )
    builder = PacketBuilder3(capability, 0, 0)
    if kinds[0] is not None:
        builder.push_int(kinds[0])
    message.push(builder)
    return builder.build().payload
