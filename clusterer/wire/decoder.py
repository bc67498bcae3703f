"""Splits a BIN byte stream into packets, for any chunks and any claimed sizes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from clusterer.errors import WireError
from clusterer.wire.layout import HEADER, INT, INTS, LENGTH, MARKER, MIN_FRAME, NAME_AT
from clusterer.wire.packet import Packet
from clusterer.wire.runs import Shape, has_shape

_WORD = b"\0\0\0\0"
_LENGTH_AT = len(MARKER)
_LENGTH_END = _LENGTH_AT + LENGTH.size

_BEGIN_OF_NAME = re.compile(rb"[a-z]{2}(?:[a-z0-9_-]{2}|.\0)", re.DOTALL)
"""Where 2.2 has the length of the name, 2.3 and later have the name: four letters, or two letters
(``ul``) and half of the packet type behind them."""


class FrameDecoder:
    """Incremental decoder of one connection's bytes.

    Holds at most one unfinished frame (65,535 bytes). OpenSIPS 2.2 sends the four zero bytes of a
    trailing empty string but does not count them in the frame length. The decoder therefore skips
    zero words before a marker and counts them in ``skipped_words``.
    """

    __slots__ = ("_error", "_missing", "_rest", "skipped_words")

    opensips_3 = False
    """Whether the packets are those of OpenSIPS 3.x."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._missing = 0  # bytes without which the frame in _rest cannot be complete
        self._error: WireError | None = None
        self.skipped_words = 0

    @property
    def in_message(self) -> bool:
        """True while a frame has begun and not ended; zero bytes before a frame do not count."""
        return bool(self._rest) and self._rest[0] != 0

    def feed(self, chunk: bytes) -> Iterator[Packet]:
        """Consume the whole ``chunk`` and iterate over the packets that it completes.

        If the stream is invalid, the iteration ends with `WireError` after the packets before the
        fault, and every further call raises the same error.
        """
        if self._error is not None:
            raise self._error.with_traceback(None)
        if len(chunk) < self._missing:
            self._missing -= len(chunk)
            self._rest += chunk
            return iter(())
        packets: list[Packet] = []
        try:
            self._split(self._with_rest(chunk), packets)
        except WireError as error:
            self._error, self._rest = error, bytearray()
            return then_raise(packets, error)
        return iter(packets)

    def _with_rest(self, chunk: bytes) -> bytes:
        if not self._rest:
            return bytes(chunk)
        self._rest += chunk
        return bytes(self._rest)

    def _split(self, data: bytes, packets: list[Packet]) -> None:
        """Append the packets that are complete in ``data`` and keep the remaining bytes."""
        at, end, alike = 0, len(data), 0
        while end - at >= MIN_FRAME:
            marker, length, version, name_length = HEADER.unpack_from(data, at)
            if marker != MARKER:
                at = self._skip_words(data, at)
                continue
            _check_lengths(length, name_length)
            if end - at < length:
                break
            packets.append(_packet(data, at, length, version, name_length))
            if length == alike and has_shape(length, name_length):
                shape = Shape(data, at, packets[-1], length, name_length)
                at = shape.read(data, at + length, packets)
                alike = 0
            else:
                at, alike = at + length, length
        self._hold(data, at)

    def _skip_words(self, data: bytes, at: int) -> int:
        """Return the end of the zero words at ``at``; raise `WireError` without a zero word."""
        start = at
        while data.startswith(_WORD, at):
            at += len(_WORD)
        if at == start:
            raise wrong_marker(data[at : at + len(MARKER)])
        self.skipped_words += (at - start) // len(_WORD)
        return at

    def _hold(self, data: bytes, at: int) -> None:
        """Keep the unfinished frame at ``at``. Raise `WireError` at once if its first bytes are
        invalid: the peer may never send the others.
        """
        if data.startswith(_WORD, at):
            at = self._skip_words(data, at)
        rest = data[at:]
        start = rest[: len(MARKER)]
        if not (MARKER.startswith(start) or _WORD.startswith(start)):
            raise wrong_marker(start)
        self._rest = bytearray(rest)
        self._missing = _missing(rest)


def _missing(rest: bytes) -> int:
    """Return how many bytes are missing from the frame in ``rest``, 0 if still unknown."""
    if len(rest) < _LENGTH_END:
        return 0
    length = LENGTH.unpack_from(rest, _LENGTH_AT)[0]
    if len(rest) < HEADER.size:
        _check_lengths(length, 0)
        return 0
    _check_lengths(length, HEADER.unpack_from(rest)[3])
    return int(length) - len(rest)


def _check_lengths(length: int, name_length: int) -> None:
    if length < MIN_FRAME:
        raise WireError(f"frame length {length} is below the smallest frame, {MIN_FRAME} bytes")
    if not 0 <= name_length <= length - MIN_FRAME:
        raise _wrong_name(length, name_length)


def _packet(data: bytes, at: int, length: int, version: int, name_length: int) -> Packet:
    name_at, end = at + NAME_AT, at + length
    type_at = name_at + name_length
    name = data[name_at:type_at].decode("utf-8", "surrogateescape")
    fields_at = type_at + INTS.size
    if fields_at > end:
        kind = INT.unpack_from(data, type_at)[0]
        return Packet(name, kind, None, data[type_at + INT.size : end], version)
    kind, sender = INTS.unpack_from(data, type_at)
    return Packet(name, kind, sender, data[fields_at:end], version)


def then_raise(packets: Iterable[Packet], error: WireError) -> Iterator[Packet]:
    """Iterate over ``packets``, and then raise ``error``."""
    yield from packets
    raise error


def _wrong_name(length: int, name_length: int) -> WireError:
    """Return the error of a name that does not fit into its frame, or of 3.x's dialect."""
    if _BEGIN_OF_NAME.fullmatch(INT.pack(name_length)):
        return WireError("a frame of OpenSIPS 2.3 or later, whose BIN differs from that of 2.2")
    return WireError(f"module name of {name_length} bytes in a frame of {length}")


def wrong_marker(found: bytes) -> WireError:
    """Return the error of bytes at the place of a marker."""
    return WireError(f"expected the marker {MARKER!r}, found {found!r}")
