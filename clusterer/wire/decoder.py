"""Splits a BIN byte stream into packets, however the bytes were cut and whatever they claim."""

from __future__ import annotations

from collections.abc import Iterator

from clusterer.errors import WireError
from clusterer.wire.layout import HEADER, INT, INTS, MARKER, MIN_FRAME, NAME_AT
from clusterer.wire.packet import Packet

_SKIP = b"\0\0\0\0"


class FrameDecoder:
    """Incremental decoder of one connection's bytes.

    Holds at most one unfinished frame (65,535 bytes). OpenSIPS 2.2 sends a trailing empty
    string's four zero bytes but leaves them out of the frame length; zero words before a marker
    are therefore skipped and counted in ``skipped_words``.
    """

    __slots__ = ("_error", "_rest", "skipped_words")

    def __init__(self) -> None:
        self._rest = b""
        self._error: WireError | None = None
        self.skipped_words = 0

    @property
    def in_message(self) -> bool:
        """True while a frame has begun and not ended; zero bytes held back are no frame."""
        return bool(self._rest) and self._rest[0] != 0

    def feed(self, chunk: bytes) -> Iterator[Packet]:
        """Consume the whole ``chunk`` and iterate over the packets it completed.

        If the stream is bad, the iteration ends with `WireError` after the packets before the
        fault, and every further call raises the same error.
        """
        if self._error is not None:
            raise self._error
        packets: list[Packet] = []
        try:
            self._split(self._rest + chunk if self._rest else bytes(chunk), packets)
        except WireError as error:
            self._error, self._rest = error, b""
        return self._result(packets, self._error)

    @staticmethod
    def _result(packets: list[Packet], error: WireError | None) -> Iterator[Packet]:
        yield from packets
        if error is not None:
            raise error

    def _split(self, data: bytes, packets: list[Packet]) -> None:
        at, end = 0, len(data)
        while end - at >= MIN_FRAME:
            marker, length, version, name_length = HEADER.unpack_from(data, at)
            if marker != MARKER:
                if marker != _SKIP:
                    raise _wrong_marker(marker)
                self.skipped_words += 1
                at += len(_SKIP)
                continue
            type_at = NAME_AT + name_length
            _check_lengths(length, name_length)
            if end - at < length:
                break
            packets.append(_packet(data, at, length, version, type_at))
            at += length
        self._rest = self._check_start(data[at:])

    def _check_start(self, rest: bytes) -> bytes:
        """Skip zero words, and refuse a bad header as soon as its first bad byte is there."""
        while rest.startswith(_SKIP):
            self.skipped_words += 1
            rest = rest[len(_SKIP) :]
        start = rest[: len(MARKER)]
        if not (MARKER.startswith(start) or _SKIP.startswith(start)):
            raise _wrong_marker(start)
        if len(rest) >= HEADER.size:
            _, length, _, name_length = HEADER.unpack_from(rest)
            _check_lengths(length, name_length)
        return rest


def _check_lengths(length: int, name_length: int) -> None:
    if length < MIN_FRAME:
        raise WireError(f"frame length {length} is below the smallest frame, {MIN_FRAME} bytes")
    if not 0 <= name_length <= length - MIN_FRAME:
        raise WireError(f"module name of {name_length} bytes in a frame of {length}")


def _packet(data: bytes, at: int, length: int, version: int, type_at: int) -> Packet:
    name = data[at + NAME_AT : at + type_at].decode("utf-8", "surrogateescape")
    if length - type_at < INTS.size:
        kind = INT.unpack_from(data, at + type_at)[0]
        return Packet(name, kind, None, data[at + type_at + INT.size : at + length], version)
    kind, sender = INTS.unpack_from(data, at + type_at)
    return Packet(name, kind, sender, data[at + type_at + INTS.size : at + length], version)


def _wrong_marker(found: bytes) -> WireError:
    return WireError(f"expected the marker {MARKER!r}, found {found!r}")
