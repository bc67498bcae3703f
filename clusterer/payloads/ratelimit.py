"""The message of OpenSIPS 2.2's ratelimit module: counters of pipes. Source: docs/wire.md."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from struct import Struct
from typing import NamedTuple, Self

from clusterer.errors import WireError
from clusterer.payloads.message import (
    VERSION,
    Message,
    builder_of,
    pop_field,
    pop_items,
    printable,
    text_of,
)
from clusterer.wire import FieldReader, Packet, PacketBuilder

__all__ = [
    "FULL_AT",
    "INT_MAX",
    "MODULE",
    "PIPE_COUNTERS",
    "VERSION",
    "Fields",
    "PipeCounters",
    "PipeRecord",
    "build_packets",
    "read_records",
]

MODULE = "ratelimit"
PIPE_COUNTERS = 0
"""The module's only packet type."""

FULL_AT = 1_400
"""Frame bytes past which a sender starts another packet; keeps frames near one Ethernet MTU."""

INT_MAX = 2**31 - 1

_LENGTH = Struct("<i")
_NUMBERS = Struct("<iii")
_LEAST = _LENGTH.size + _NUMBERS.size
"""Bytes of a pipe without a name."""
_ALONE = {_LEAST + name: Struct(f"<i{name}s{_NUMBERS.format[1:]}").unpack for name in range(65)}
"""By payload length: unpacks a payload of one pipe with a name of up to 64 bytes into length of the
name, name, algorithm, limit, counter."""
_ALGORITHMS = frozenset(range(6))
_NAME = "ratelimit pipe counters"


class PipeRecord(NamedTuple):
    """One pipe as on the wire."""

    name: bytes
    algorithm: int
    """0 none, 1 TAILDROP, 2 RED, 3 FEEDBACK, 4 NETWORK, 5 HISTORY."""
    limit: int
    counter: int
    """Checks in the sender's last whole interval. HISTORY pipes between OpenSIPS 2.2 nodes echo and
    grow until the number overflows: a negative number has no meaning."""

    def text(self, field: str) -> str:
        """Return a bytes field as text; bytes that are not UTF-8 by surrogateescape."""
        return text_of(self, field, _NAME)


Fields = tuple[bytes, int, int, int]
"""A `PipeRecord` as a plain tuple, which takes a fifth of the time to make."""


@dataclass(frozen=True, slots=True)
class PipeCounters(Message, module=MODULE, type=PIPE_COUNTERS, name=_NAME):
    """Counters of the sender's pipes. Without a pipe: a heartbeat."""

    pipes: tuple[PipeRecord, ...] = ()

    @classmethod
    def decode(cls, packet: Packet) -> Self:
        return cls(tuple(map(PipeRecord._make, read_records(packet))))

    def encode(self, machine_id: int) -> Packet:
        """Return one packet with all pipes; `build_packets` makes several of moderate size."""
        builder = builder_of(self, machine_id)
        for record in self.pipes:
            _push(builder, record)
        return builder.build()

    def shown(self) -> dict[str, object]:
        return {"pipes": [{**p._asdict(), "name": printable(p.name)} for p in self.pipes]}


def read_records(packet: Packet) -> list[Fields]:
    """Return all pipes of ``packet``, none for a heartbeat.

    Raises `WireError`, and returns no pipe at all, if a field is missing or cut off or an
    algorithm is unknown. A counter may be below 0: see `PipeRecord.counter`. Hot path: one unpack
    reads a payload of one pipe; for several pipes one unpack reads all numbers of a pipe.
    """
    data = packet.payload
    alone = _ALONE.get(len(data))
    if alone is not None:
        size, name, algorithm, limit, counter = alone(data)
        if size == len(name) and algorithm in _ALGORITHMS:
            return [(name, algorithm, limit, counter)]
    at, end = 0, len(data)
    last_start = end - _LEAST
    records: list[Fields] = []
    while at < end:
        if at > last_start:
            return _read_slowly(packet)
        name_at = at + _LENGTH.size
        numbers_at = name_at + _LENGTH.unpack_from(data, at)[0]
        if not name_at <= numbers_at <= end - _NUMBERS.size:
            return _read_slowly(packet)
        algorithm, limit, counter = _NUMBERS.unpack_from(data, numbers_at)
        if algorithm not in _ALGORITHMS:
            return _read_slowly(packet)
        records.append((data[name_at:numbers_at], algorithm, limit, counter))
        at = numbers_at + _NUMBERS.size
    return records


def build_packets(
    new_packet: Callable[[], PacketBuilder], records: Iterable[Fields]
) -> Iterator[Packet]:
    """Yield the packets with ``records``: at least one, a heartbeat if there are no records.

    ``new_packet`` starts a packet of `MODULE`, `PIPE_COUNTERS` and `VERSION`. Counters beyond
    31 bits are sent as the largest one that fits.
    """
    builder = new_packet()
    for record in records:
        if builder.size > FULL_AT:
            yield builder.build()
            builder = new_packet()
        _push(builder, record)
    yield builder.build()


def _push(builder: PacketBuilder, record: Fields) -> None:
    name, algorithm, limit, counter = record
    builder.push_str(name).push_int(algorithm).push_int(limit).push_int(min(counter, INT_MAX))


def _read_slowly(packet: Packet) -> list[Fields]:
    """Return the same as `read_records`, field by field, so that an error names its field."""
    items = pop_items(_NAME, "pipe", "name", packet.fields(), _pop_numbers)
    return [(name, *numbers) for name, numbers in items]


def _pop_numbers(reader: FieldReader) -> tuple[int, int, int]:
    algorithm = pop_field("algorithm", FieldReader.pop_int, reader)
    if algorithm not in _ALGORITHMS:
        raise WireError(f"field 'algorithm' is {algorithm}, which is unknown")
    limit = pop_field("limit", FieldReader.pop_int, reader)
    return algorithm, limit, pop_field("counter", FieldReader.pop_int, reader)
