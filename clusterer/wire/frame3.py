"""Frames of OpenSIPS 3.x: their identities at the end of the body, and their bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from clusterer.errors import FrameTooLarge, InvalidArgument
from clusterer.wire.layout import INT, INT_MAX, INT_MIN, MARKER, SHORT_MAX, SHORT_MIN
from clusterer.wire.layout3 import (
    BRIDGE,
    BRIDGE_TRAILER,
    CONTROL,
    HEADER,
    IDS,
    INTERNAL,
    MAX_BUILT,
    MAX_FRAME,
    NAME_AT,
    STR_LENGTH,
    TRAILER,
)
from clusterer.wire.numbers import require_range

_CONTROL = frozenset(name.encode() for name in CONTROL)


class Trailer(NamedTuple):
    """What a packet of OpenSIPS 3.x says of its way, besides its source node.

    The packets of `clusterer-internal` have it at the beginning of the body, without a destination.
    """

    cluster_id: int | None
    """The cluster that the packet is for; None in a frame too short for a trailer."""
    destination: int | None = None
    """Node that the packet is for; 0 while the delivery has not filled it in; None without one."""
    source_cluster: int | None = None
    """The cluster that a packet from another cluster comes from (4.0), else None."""
    source_node: int | None = None
    """The node of ``source_cluster`` that the packet comes from, else None."""


def read_body(name: str, body: bytes) -> tuple[int | None, bytes, Trailer]:
    """Return source node, fields and trailer of the ``body`` behind the packet type.

    A packet from another cluster has no source node in the cluster that it is for: None.
    """
    if name == INTERNAL:
        if len(body) < IDS.size:
            return None, body, Trailer(None)
        cluster_id, source = IDS.unpack_from(body)
        return source, body[IDS.size :], Trailer(cluster_id)
    at = len(body) - TRAILER.size
    if at < 0:
        return None, body, Trailer(None)
    cluster_id, source, destination = TRAILER.unpack_from(body, at)
    if destination != BRIDGE:
        return source, body[:at], Trailer(cluster_id, destination)
    at = len(body) - BRIDGE_TRAILER.size
    if at < 0:
        return None, body, Trailer(None)
    source_cluster, cluster_id, source, _ = BRIDGE_TRAILER.unpack_from(body, at)
    return None, body[:at], Trailer(cluster_id, BRIDGE, source_cluster, source)


def encode(  # noqa: PLR0917 - the fields of a packet
    name: str, kind: int, source: int | None, payload: bytes, version: int, trailer: Trailer
) -> bytes:
    """Return the frame of a packet; of a received packet, the bytes that were received.

    Raises `FrameTooLarge` beyond 65,535 bytes; `InvalidArgument` for a name or number that is none.
    """
    start = _name_of(name)
    require_range("packet type", kind, INT_MIN, INT_MAX)
    require_range("packet version", version, SHORT_MIN, SHORT_MAX)
    body = _body(name, source, payload, trailer)
    length = HEADER.size + len(start) + INT.size + len(body)
    if length > MAX_FRAME:
        raise too_large(name, kind, length, MAX_FRAME)
    return b"".join((HEADER.pack(MARKER, length, version, len(start)), start, INT.pack(kind), body))


def _body(name: str, source: int | None, payload: bytes, trailer: Trailer) -> bytes:
    """Return all bytes of the frame behind the packet type: the inverse of `read_body`."""
    cluster_id, destination, source_cluster, source_node = trailer
    if cluster_id is None:
        if read_body(name, payload) != (source, payload, trailer):
            raise InvalidArgument(f"{name[:40]} packet names no cluster")
        return payload
    require_range("cluster_id", cluster_id, INT_MIN, INT_MAX)
    if source_cluster is not None:
        require_range("source cluster", source_cluster, INT_MIN, INT_MAX)
        node = require_range("source node", source_node, INT_MIN, INT_MAX)
        return payload + BRIDGE_TRAILER.pack(source_cluster, cluster_id, node, BRIDGE)
    sender = require_range("machine_id", source, INT_MIN, INT_MAX)
    if name == INTERNAL:
        return IDS.pack(cluster_id, sender) + payload
    node = require_range("destination", destination or 0, INT_MIN, INT_MAX)
    if node == BRIDGE:
        raise InvalidArgument(f"{name[:40]} packet for another cluster names no source cluster")
    return payload + TRAILER.pack(cluster_id, sender, node)


def _name_of(name: object) -> bytes:
    """Return the bytes of a received capability's name."""
    if not isinstance(name, str) or not name:
        raise InvalidArgument(f"capability must be a name, not {name!r:.60}")
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise InvalidArgument(f"capability {name[:40]!r} is not UTF-8: {error.reason}") from error


def require_name(name: object) -> None:
    """Raise `InvalidArgument` for a name that no capability of a packet to be sent may have."""
    if not isinstance(name, str) or not name or not name.isascii() or len(name) > 255:
        raise InvalidArgument(f"capability must be 1 to 255 ASCII characters, not {name!r:.60}")


def size_without_fields(name: str) -> int:
    """Return the bytes of a frame of this capability that has no fields."""
    identities = IDS if name == INTERNAL else TRAILER
    encoded = name.encode("utf-8", "surrogateescape")
    return HEADER.size + len(encoded) + INT.size + identities.size


def too_large(name: str, kind: int, size: int, most: int = MAX_BUILT) -> FrameTooLarge:
    """Return the error of a frame that would have ``size`` bytes."""
    return FrameTooLarge(
        f"{name[:40]} packet of type {kind} takes {size} bytes, "
        f"a BIN frame of OpenSIPS 3.x has at most {most}"
    )


def addressed(frames: bytes, ends: Sequence[int], destination: int) -> bytes:
    """Return joined frames with ``destination`` as the destination node of each.

    ``ends`` has the offset at which each frame ends. No frame may be one of `INTERNAL`.
    """
    node = INT.pack(destination)
    made = bytearray(frames)
    if isinstance(ends, range):  # frames of one size
        for at, byte in enumerate(node, -INT.size):
            made[ends.start + at :: ends.step] = bytes((byte,)) * len(ends)
        return bytes(made)
    for end in ends:
        made[end - INT.size : end] = node
    return bytes(made)


def is_for(frame: bytes, cluster_id: int) -> bool:
    """Whether ``frame``, which ends where it says, is a module's frame for this cluster.

    No other frame may be `addressed`. A frame of 2.2 has zeros for the length of the name.
    """
    size = name_length(frame)
    end = len(frame) - TRAILER.size
    if not 0 < size <= end - NAME_AT - INT.size:
        return False
    named: int = INT.unpack_from(frame, end)[0]
    return named == cluster_id and frame[NAME_AT : NAME_AT + size] not in _CONTROL


def name_length(frame: bytes) -> int:
    """Return the length of the capability's name of the first of joined frames."""
    size: int = STR_LENGTH.unpack_from(frame, NAME_AT - STR_LENGTH.size)[0]
    return size
