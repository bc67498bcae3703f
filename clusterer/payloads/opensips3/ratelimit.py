"""Messages of the ratelimit module of OpenSIPS 3.x: counters of pipes. Source: docs/wire3.md."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Self

from clusterer.errors import InvalidArgument, WireError
from clusterer.payloads.message import pop_field, pop_items, printable, text_of
from clusterer.payloads.opensips3.message import Message3
from clusterer.wire import FieldReader, Packet, PacketBuilder3

MODULE = "ratelimit-pipe-repl"

_ALGORITHMS = frozenset(range(6))
_MARK = b"/b"
"""End of the name of a shared pipe in scripts, and on the wire until 3.2."""

Rest = tuple[int, int, int, int | None]
"""Algorithm, limit, counter and flags of a pipe."""
PopRest = Callable[[FieldReader], Rest]


class PipeRecord(NamedTuple):
    """One pipe as on the wire."""

    name: bytes
    """Until 3.2 with the ``/b`` of the script, from 3.3 on without."""
    algorithm: int
    """0 none, 1 TAILDROP, 2 RED, 3 FEEDBACK, 4 NETWORK, 5 SBT."""
    limit: int
    counter: int
    """Checks by the sender alone: in its window (SBT), else in its last whole interval."""
    flags: int | None = 1
    """1 shared over BIN, 2 in a cache; None in the layout until 3.2, which has no flags."""

    def text(self, field: str) -> str:
        """Return a bytes field as text; bytes that are not UTF-8 by surrogateescape."""
        return text_of(self, field, PipeCounters.NAME)


@dataclass(frozen=True, slots=True)
class PipeCounters(Message3, module=MODULE, type=0, name="ratelimit pipe counters"):
    """Counters of the sender's pipes. The packet does not say which of two layouts it has.

    `decode` takes the layout with flags if it fits, else the one until 3.2; the other way round if
    the first name ends in ``/b``.
    """

    pipes: tuple[PipeRecord, ...] = ()

    @classmethod
    def decode(cls, packet: Packet) -> Self:
        layouts = [_pop_rest, _pop_rest_until_3_2]
        if _starts_marked(packet.fields()):
            layouts.reverse()
        faults = []
        for layout in layouts:
            try:
                return cls(_pop_pipes(cls.NAME, packet.fields(), layout))
            except WireError as error:
                faults.append(error)
        raise faults[0]

    def push(self, builder: PacketBuilder3) -> None:
        if len({pipe.flags is None for pipe in self.pipes}) > 1:
            raise InvalidArgument(f"{self.NAME}: all pipes must have flags, or none of them")
        _push_pipes(builder, self.pipes)

    def shown(self) -> dict[str, object]:
        return {"pipes": [_shown(pipe) for pipe in self.pipes]}


@dataclass(frozen=True, slots=True)
class RelayedPipeCounters(Message3, module=MODULE, type=11, name="ratelimit relayed counters"):
    """Counters of the pipes of another cluster, which the node that got them passes on (4.0)."""

    source_cluster: int
    """cluster_id of that cluster."""
    pipes: tuple[PipeRecord, ...] = ()

    @classmethod
    def decode(cls, packet: Packet) -> Self:
        reader = packet.fields()
        try:
            source_cluster = pop_field("source cluster", FieldReader.pop_int, reader)
        except WireError as error:
            raise WireError(f"{cls.NAME}: {error}") from error
        return cls(source_cluster, _pop_pipes(cls.NAME, reader, _pop_rest))

    def push(self, builder: PacketBuilder3) -> None:
        if any(pipe.flags is None for pipe in self.pipes):
            raise InvalidArgument(f"{self.NAME}: all pipes must have flags")
        builder.push_int(self.source_cluster)
        _push_pipes(builder, self.pipes)

    def shown(self) -> dict[str, object]:
        pipes = [_shown(pipe) for pipe in self.pipes]
        return {"source_cluster": self.source_cluster, "pipes": pipes}


@dataclass(frozen=True, slots=True)
class BridgedPipeCounters(RelayedPipeCounters, type=10, name="ratelimit bridged counters"):
    """The same from a node of the other cluster (4.0). Such a packet is only received."""

    def encode(self, machine_id: int, cluster_id: int = 1) -> Packet:
        raise InvalidArgument(
            f"{self.NAME}: only a bridge between clusters sends this message; "
            "RelayedPipeCounters passes the counters on"
        )


def _starts_marked(reader: FieldReader) -> bool:
    """Return whether the name of the first pipe ends in ``/b``."""
    try:
        return (reader.pop_str() or b"").endswith(_MARK)
    except WireError:
        return False


def _pop_pipes(where: str, reader: FieldReader, pop_rest: PopRest) -> tuple[PipeRecord, ...]:
    items = pop_items(where, "pipe", "name", reader, pop_rest)
    return tuple([PipeRecord(name, *rest) for name, rest in items])


def _pop_rest(reader: FieldReader) -> Rest:
    flags = pop_field("flags", FieldReader.pop_int, reader)
    algorithm, limit, counter, _ = _pop_rest_until_3_2(reader)
    return algorithm, limit, counter, flags


def _pop_rest_until_3_2(reader: FieldReader) -> Rest:
    algorithm = pop_field("algorithm", FieldReader.pop_int, reader)
    if algorithm not in _ALGORITHMS:
        raise WireError(f"field 'algorithm' is {algorithm}, which is unknown")
    limit = pop_field("limit", FieldReader.pop_int, reader)
    return algorithm, limit, pop_field("counter", FieldReader.pop_int, reader), None


def _push_pipes(builder: PacketBuilder3, pipes: tuple[PipeRecord, ...]) -> None:
    for name, algorithm, limit, counter, flags in pipes:
        builder.push_str(name)
        if flags is not None:
            builder.push_int(flags)
        builder.push_int(algorithm).push_int(limit).push_int(counter)


def _shown(pipe: PipeRecord) -> dict[str, object]:
    values = {**pipe._asdict(), "name": printable(pipe.name)}
    return {name: value for name, value in values.items() if value is not None}
