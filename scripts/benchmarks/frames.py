"""The benchmarks' packets: all of one size, with the time of sending at a fixed place."""

from __future__ import annotations

import struct
from time import monotonic_ns

from clusterer.wire import Packet, PacketBuilder

MODULE = "bench"
SIZE = 200
"""Bytes of a frame."""

SENDER_AT = 25
"""Where the sender's machine_id stands in a frame (signed, 32 bit)."""
TIME_AT = 33
"""Where the time of sending stands (monotonic ns, unsigned, 64 bit); a str field's begin."""

TIME = struct.Struct("<Q")
SENDER = struct.Struct("<i")
_REST = b"x" * (SIZE - TIME_AT - TIME.size)


def packet(sender: int) -> Packet:
    """Return a packet that carries the time of this call."""
    head = PacketBuilder(MODULE, 1, sender)
    return head.push_str(TIME.pack(monotonic_ns()) + _REST).build()
