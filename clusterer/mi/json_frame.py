"""Finds the end of a JSON text in a stream: clients of OpenSIPS 3 write no line feed."""

from __future__ import annotations

MAX_JSON = 65_536
"""Bytes in one text, as in an HTTP body."""

_QUOTE, _ESCAPE, _COLON = b'"\\:'
_BLANKS = frozenset(b" \t\r\n")
_OPENING, _CLOSING = frozenset(b"{["), frozenset(b"}]")
_OUTSIDE = _BLANKS | _OPENING | _CLOSING | frozenset(b',:"+-.0123456789eEtrufalsn')
"""The bytes outside of strings: punctuation, numbers, true, false and null."""


class BrokenJson(ValueError):
    """Bytes that are not JSON, with the reason and the index of the first wrong byte."""

    def __init__(self, why: str, index: int) -> None:
        super().__init__(why)
        self.index = index


class JsonFrame:
    """Collects one object or array.

    The frame finds the end, and most bytes that cannot be JSON, at once: an incomplete request
    consumes as little of the next request as possible.
    """

    def __init__(self) -> None:
        self.text = bytearray()
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self._after_string = False

    def feed(self, chunk: bytes, start: int) -> int | None:
        """Take bytes from index ``start``; return the index behind the text's end, or None.

        Raises `BrokenJson`; the byte at its index is not taken.
        """
        for index in range(start, len(chunk)):
            byte = chunk[index]
            self._check(byte, index)
            self.text.append(byte)
            if self._in_string:
                self._inside(byte)
            elif self._outside(byte):
                return index + 1
        return None

    def _check(self, byte: int, index: int) -> None:
        if len(self.text) >= MAX_JSON:
            raise BrokenJson(f"more than {MAX_JSON} bytes of JSON", index)
        if self._in_string:
            if byte < 0x20:
                raise BrokenJson("a control character in a string", index)
        elif byte not in _OUTSIDE:
            raise BrokenJson(f"{chr(byte)!r} outside of a string", index)
        elif byte == _COLON and not self._after_string:
            raise BrokenJson("':' without a name before it", index)

    def _inside(self, byte: int) -> None:
        if self._escaped:
            self._escaped = False
        elif byte == _ESCAPE:
            self._escaped = True
        elif byte == _QUOTE:
            self._in_string = False
            self._after_string = True

    def _outside(self, byte: int) -> bool:
        """Take a byte outside of strings; return whether the byte ends the text."""
        if byte in _BLANKS:
            return False
        self._after_string = False
        self._in_string = byte == _QUOTE
        self._depth += (byte in _OPENING) - (byte in _CLOSING)
        return self._depth == 0
