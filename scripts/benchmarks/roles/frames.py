"""The packets of senders and receivers: all of one size, the time of sending at a fixed place."""

from __future__ import annotations

import struct
from time import monotonic_ns

from clusterer.wire import Packet, PacketBuilder

MODULE = "bench"
SIZE = 200
"""Bytes of a frame."""

SENDER_AT = 25
"""Offset of the sender's machine_id in a frame (signed, 32 bit)."""
TIME_AT = 33
"""Offset of the time of sending (monotonic ns, unsigned, 64 bit): the start of a str field."""

TIME = struct.Struct("<Q")
SENDER = struct.Struct("<i")
_REST = b"x" * (SIZE - TIME_AT - TIME.size)


def packet(sender: int) -> Packet:
    """Return a packet that carries the time of this call."""
    head = PacketBuilder(MODULE, 1, sender)
    return head.push_str(TIME.pack(monotonic_ns()) + _REST).build()
