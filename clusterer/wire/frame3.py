"""Frames of OpenSIPS 3.x: their identities at the end of the body, and their bytes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from clusterer.errors import FrameTooLarge, InvalidArgument
from clusterer.wire.layout import INT, INT_MAX, INT_MIN, MARKER, SHORT_MAX, SHORT_MIN
from clusterer.wire.layout3 import (
    BRIDGE,
    BRIDGE_TRAILER,
    HEADER,
    IDS,
    INTERNAL,
    MAX_BUILT,
    TRAILER,
)
from clusterer.wire.numbers import require_range


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
    source_cluster, cluster_id, _, _ = BRIDGE_TRAILER.unpack_from(body, at)
    return None, body[:at], Trailer(cluster_id, BRIDGE, source_cluster)


def encode(  # noqa: PLR0917 - the fields of a packet
    name: str, kind: int, source: int | None, payload: bytes, version: int, trailer: Trailer
) -> bytes:
    """Return the frame of a packet. Raises `FrameTooLarge` and `InvalidArgument`."""
    if source is None or trailer.cluster_id is None or trailer.source_cluster is not None:
        raise InvalidArgument(f"{name[:40]} packet of type {kind} has no source node or cluster")
    numbers = {
        "packet type": kind,
        "machine_id": source,
        "cluster_id": trailer.cluster_id,
        "destination": trailer.destination or 0,
    }
    for label, number in numbers.items():
        require_range(label, number, INT_MIN, INT_MAX)
    require_range("packet version", version, SHORT_MIN, SHORT_MAX)
    if name == INTERNAL:
        body = IDS.pack(trailer.cluster_id, source) + payload
    else:
        body = payload + TRAILER.pack(trailer.cluster_id, source, trailer.destination or 0)
    start = encoded_name(name)
    length = HEADER.size + len(start) + INT.size + len(body)
    if length > MAX_BUILT:
        raise too_large(name, kind, length)
    return b"".join((HEADER.pack(MARKER, length, version, len(start)), start, INT.pack(kind), body))


@lru_cache(maxsize=256)
def encoded_name(name: object) -> bytes:
    """Return the bytes of a capability's name; raise `InvalidArgument` for what cannot be one."""
    if not isinstance(name, str) or not name or not name.isascii() or len(name) > 255:
        raise InvalidArgument(f"capability must be 1 to 255 ASCII characters, not {name!r:.60}")
    return name.encode()


def too_large(name: str, kind: int, size: int) -> FrameTooLarge:
    """Return the error of a frame that would have ``size`` bytes."""
    return FrameTooLarge(
        f"{name[:40]} packet of type {kind} takes {size} bytes, "
        f"a BIN frame of OpenSIPS 3.x has at most {MAX_BUILT}"
    )


def addressed(frames: bytes, ends: Sequence[int], destination: int) -> bytes:
    """Return joined frames with ``destination`` as the destination node of each.

    ``ends`` has the offset at which each frame ends. No frame may be one of `INTERNAL`.
    """
    node = INT.pack(destination)
    made = bytearray(frames)
    for end in ends:
        made[end - INT.size : end] = node
    return bytes(made)
