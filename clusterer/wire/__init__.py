"""BIN as OpenSIPS 2.2 speaks it: bytes in, packets out. No socket, no clock, no Redis."""

from clusterer.errors import FrameTooLarge, WireError
from clusterer.wire.decoder import FrameDecoder
from clusterer.wire.packet import FieldReader, Packet, PacketBuilder

__all__ = ["FieldReader", "FrameDecoder", "FrameTooLarge", "Packet", "PacketBuilder", "WireError"]
