"""BIN as OpenSIPS 2.2 and 3.x speak it: bytes in, packets out. No socket, no clock, no Redis."""

from clusterer.errors import FrameTooLarge, WireError
from clusterer.wire.builder3 import PacketBuilder3
from clusterer.wire.decoder import FrameDecoder
from clusterer.wire.decoder3 import EitherDecoder, FrameDecoder3
from clusterer.wire.frame3 import Trailer
from clusterer.wire.packet import Packet, PacketBuilder
from clusterer.wire.reader import FieldReader, FieldReader3

__all__ = [
    "EitherDecoder",
    "FieldReader",
    "FieldReader3",
    "FrameDecoder",
    "FrameDecoder3",
    "FrameTooLarge",
    "Packet",
    "PacketBuilder",
    "PacketBuilder3",
    "Trailer",
    "WireError",
]
