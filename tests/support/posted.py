"""Numbered packets of an instance that posts, and what its log has of them."""

from __future__ import annotations

from collections.abc import Iterable

import redis

from clusterer import PROTO_BIN, Clusterer
from clusterer.store import keys
from clusterer.wire import FrameDecoder, Packet
from tests.support.streams import entries

LONG_S = 30.0
"""Time for what has to happen, on a busy host too."""


def numbered(cluster: Clusterer, number: int, size: int = 0, module: str = "test") -> Packet:
    """Return a packet with a number, and ``size`` more bytes."""
    return cluster.packet(module, 1).push_int(number).push_str(b"x" * size).build()


def post(cluster: Clusterer, numbers: Iterable[int], *, cluster_id: int = 1, size: int = 0) -> None:
    """Post one packet per number."""
    for number in numbers:
        cluster.post(cluster_id, PROTO_BIN, numbered(cluster, number, size))


def logged(client: redis.Redis, sender: int = 1, cluster_id: int | None = None) -> list[int]:
    """Return the numbers of the packets in a sender's log, in order."""
    return [
        packet.fields().pop_int() or 0
        for _, fields in entries(client, keys.log(sender))
        if cluster_id in {None, int(fields[b"cluster"])}
        for packet in FrameDecoder().feed(fields[b"frames"])
    ]
