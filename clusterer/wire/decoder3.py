"""Splits a BIN byte stream of OpenSIPS 3.x into packets, or one whose dialect is not known yet."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from clusterer.errors import WireError
from clusterer.wire.decoder import FrameDecoder, wrong_marker
from clusterer.wire.frame3 import Trailer, read_body
from clusterer.wire.layout import HEADER as HEADER2
from clusterer.wire.layout import INT, MARKER
from clusterer.wire.layout import MIN_FRAME as MIN_FRAME2
from clusterer.wire.layout3 import BRIDGE, HEADER, INTERNAL, MAX_FRAME, MIN_FRAME, NAME_AT, TRAILER
from clusterer.wire.packet import Packet

_LONGEST_KEPT = 64
"""Bytes of the longest name that is kept for the next packet: a peer may send any names."""

_new = tuple.__new__  # the constructor of a named tuple takes twice as long


class FrameDecoder3(FrameDecoder):
    """Incremental decoder of the bytes of one connection of OpenSIPS 3.x.

    Holds at most one unfinished frame (65,535 bytes). See `FrameDecoder.feed`.
    """

    __slots__ = ()

    opensips_3 = True

    def _split(self, data: bytes, packets: list[Packet]) -> None:
        at, end = 0, len(data)
        self._missing = 0
        while end - at >= HEADER.size:
            marker, length, version, name_length = HEADER.unpack_from(data, at)
            if marker != MARKER:
                raise wrong_marker(marker)
            _check_lengths(length, name_length)
            if end - at < length:
                self._missing = length - (end - at)
                break
            packets.append(_packet(data, at, length, version, name_length))
            at += length
        rest = data[at:]
        if not MARKER.startswith(rest[: len(MARKER)]):
            raise wrong_marker(rest[: len(MARKER)])
        self._rest = bytearray(rest)


class EitherDecoder:
    """Incremental decoder of one connection whose dialect the first frame tells."""

    __slots__ = ("_decoder", "_start")

    def __init__(self) -> None:
        self._start = b""
        self._decoder: FrameDecoder | None = None

    @property
    def in_message(self) -> bool:
        """True while a frame has begun and not ended."""
        return bool(self._start) if self._decoder is None else self._decoder.in_message

    @property
    def opensips_3(self) -> bool:
        """Whether the packets are those of OpenSIPS 3.x; False before the first frame."""
        return self._decoder is not None and self._decoder.opensips_3

    @property
    def skipped_words(self) -> int:
        """Zero words before frames of 2.2, see `FrameDecoder`."""
        return 0 if self._decoder is None else self._decoder.skipped_words

    def feed(self, chunk: bytes) -> Iterator[Packet]:
        """Consume the whole ``chunk``; see `FrameDecoder.feed`."""
        if self._decoder is None:
            self._start += chunk
            if len(self._start) < HEADER2.size and MARKER.startswith(self._start[: len(MARKER)]):
                return iter(())
            chunk, self._start = self._start, b""
            self._decoder = FrameDecoder3() if _is_opensips_3(chunk) else FrameDecoder()
        return self._decoder.feed(chunk)


def _is_opensips_3(start: bytes) -> bool:
    """Whether the first 16 bytes of a connection are those of OpenSIPS 2.3 or later.

    All dialects have the same marker, but from 2.3 on the capability's name is at the place of the
    name's length, and names a length that no frame of 2.2 has.
    """
    if len(start) < HEADER2.size or not start.startswith(MARKER):
        return False
    _, length, _, name_length = HEADER2.unpack_from(start)
    return not 0 <= name_length <= length - MIN_FRAME2


def _check_lengths(length: int, name_length: int) -> None:
    if not MIN_FRAME <= length <= MAX_FRAME:
        raise WireError(f"frame length {length} is not {MIN_FRAME} to {MAX_FRAME} bytes")
    if not 0 < name_length <= length - NAME_AT - INT.size:
        raise WireError(f"capability name of {name_length} bytes in a frame of {length}")


def _packet(data: bytes, at: int, length: int, version: int, name_length: int) -> Packet:
    """Return the packet of the frame at ``at``."""
    type_at = at + NAME_AT + name_length
    body_at, end = type_at + INT.size, at + length
    name = (_name if name_length <= _LONGEST_KEPT else _decoded)(data[at + NAME_AT : type_at])
    kind = INT.unpack_from(data, type_at)[0]
    trailer_at = end - TRAILER.size
    if trailer_at >= body_at and name != INTERNAL:  # most packets: read without copies of parts
        cluster_id, source, destination = TRAILER.unpack_from(data, trailer_at)
        if destination != BRIDGE:
            trailer = _trailer(cluster_id, destination)
            return _new(Packet, (name, kind, source, data[body_at:trailer_at], version, trailer))
    source, payload, trailer = read_body(name, data[body_at:end])
    return Packet(name, kind, source, payload, version, trailer)


def _decoded(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


_name = lru_cache(maxsize=256)(_decoded)


@lru_cache(maxsize=256)
def _trailer(cluster_id: int, destination: int) -> Trailer:
    return Trailer(cluster_id, destination)
