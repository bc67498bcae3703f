"""The 'pipe counters' packet of OpenSIPS 2.2's ratelimit module. Source: docs/wire.md."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from clusterer.errors import WireError
from clusterer.wire import FieldReader, Packet, PacketBuilder

MODULE = "ratelimit"
PIPE_COUNTERS = 0
"""The module's only packet type."""

VERSION = 1
"""Packets of any other version are dropped, as 2.2 does."""

FULL_AT = 1_400
"""Frame bytes past which a sender starts another packet; keeps frames near one Ethernet MTU."""

INT_MAX = 2**31 - 1
_ALGORITHMS = range(6)


class PipeRecord(NamedTuple):
    """One pipe as it goes over the wire."""

    name: bytes
    algorithm: int
    """0 none, 1 TAILDROP, 2 RED, 3 FEEDBACK, 4 NETWORK, 5 HISTORY."""
    limit: int
    counter: int
    """Checks in the sender's last whole interval."""


def read_records(packet: Packet) -> list[PipeRecord]:
    """Return all pipes of ``packet``, none for a heartbeat.

    Raises `WireError`, and gives no pipe at all, if a field is missing or cut off, an algorithm
    is unknown or a counter negative.
    """
    fields = packet.fields()
    records = []
    while (name := fields.pop_str()) is not None:
        records.append(_record(name, fields))
    return records


def _record(name: bytes, fields: FieldReader) -> PipeRecord:
    algorithm, limit, counter = fields.pop_int(), fields.pop_int(), fields.pop_int()
    if algorithm is None or limit is None or counter is None:
        raise WireError(f"packet ends inside pipe {name[:40]!r}")
    if algorithm not in _ALGORITHMS:
        raise WireError(f"pipe {name[:40]!r} has the unknown algorithm {algorithm}")
    if counter < 0:
        raise WireError(f"pipe {name[:40]!r} has the counter {counter}")
    return PipeRecord(name, algorithm, limit, counter)


def build_packets(
    new_packet: Callable[[], PacketBuilder], records: Iterable[PipeRecord]
) -> Iterator[Packet]:
    """Yield the packets that carry ``records``: at least one, which is then the heartbeat.

    ``new_packet`` starts a packet of `MODULE`, `PIPE_COUNTERS` and `VERSION`. Counters beyond
    31 bits are sent as the largest one that fits.
    """
    builder = new_packet()
    for name, algorithm, limit, counter in records:
        if builder.size > FULL_AT:
            yield builder.build()
            builder = new_packet()
        builder.push_str(name).push_int(algorithm).push_int(limit)
        builder.push_int(min(counter, INT_MAX))
    yield builder.build()
