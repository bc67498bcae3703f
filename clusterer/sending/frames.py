"""The frame of a packet that may be sent, in the dialect of its cluster."""

from __future__ import annotations

from clusterer.errors import InvalidArgument
from clusterer.wire import Packet, Trailer
from clusterer.wire.frame3 import require_name, too_large
from clusterer.wire.layout3 import CONTROL, MAX_BUILT


def frame_of(packet: Packet) -> bytes:
    """Return the frame of a packet that may be sent; raises `InvalidArgument`, `FrameTooLarge`."""
    if not isinstance(packet, Packet):
        raise InvalidArgument(f"only a Packet can be sent, not {packet!r:.80}")
    frame = packet.encode()
    if packet.type < 0 or packet.trailer is not None:
        raise _refusal(packet)
    return frame


def frame3_of(cluster_id: int, packet: Packet) -> bytes:
    """Return the same for a packet to a cluster of OpenSIPS 3.x.

    The frame names a destination that the delivery replaces for each node.
    """
    if not isinstance(packet, Packet):
        raise InvalidArgument(f"only a Packet can be sent, not {packet!r:.80}")
    fault = _fault3(cluster_id, packet.module, packet.trailer)
    if fault:
        raise InvalidArgument(f"{_named(packet)} {fault}")
    require_name(packet.module)
    frame = packet.encode()
    if len(frame) > MAX_BUILT:
        raise too_large(packet.module, packet.type, len(frame))
    if packet.type < 0:
        raise _refusal(packet)
    return frame


def _fault3(cluster_id: int, capability: str, trailer: Trailer | None) -> str:
    """Return why a packet cannot be one to this cluster of OpenSIPS 3.x; empty if it can."""
    if trailer is None:
        return (
            f"is one of OpenSIPS 2.2, and the nodes of cluster {cluster_id} are OpenSIPS 3.x "
            f"(opensips_3_clusters): build it with packet(…, cluster_id={cluster_id})"
        )
    if trailer.cluster_id != cluster_id:
        return f"is for cluster {trailer.cluster_id}, not for cluster {cluster_id}"
    if trailer.source_cluster is not None:
        return "comes from another cluster"
    if capability in CONTROL:
        return "is one of the clusterer itself, and no program sends it"
    return ""


def _refusal(packet: Packet) -> InvalidArgument:
    """Return why a packet that can be encoded is not sent."""
    if packet.type < 0:
        return InvalidArgument(
            f"{_named(packet)}: negative types are notices of the cluster itself, "
            "and no node sends them"
        )
    return InvalidArgument(
        f"{_named(packet)} is one of OpenSIPS 3.x, and the nodes of the cluster are OpenSIPS 2.2: "
        "opensips_3_clusters lacks the cluster"
    )


def _named(packet: Packet) -> str:
    return f"{packet.module:.40} packet of type {packet.type}"
