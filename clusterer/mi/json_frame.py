"""Where a JSON text in a stream ends: OpenSIPS 3's clients write no line feed behind it."""

from __future__ import annotations

MAX_JSON = 65_536
"""Bytes in one text, as in a body over HTTP."""

_QUOTE, _ESCAPE, _COLON = b'"\\:'
_BLANKS = frozenset(b" \t\r\n")
_OPENING, _CLOSING = frozenset(b"{["), frozenset(b"}]")
_OUTSIDE = _BLANKS | _OPENING | _CLOSING | frozenset(b',:"+-.0123456789eEtrufalsn')
"""All that can stand outside of a string: punctuation, numbers, true, false and null."""


class BrokenJson(ValueError):
    """This is no JSON; says why, and at which index of the bytes that were fed this was seen."""

    def __init__(self, why: str, index: int) -> None:
        super().__init__(why)
        self.index = index


class JsonFrame:
    """Collects one object or array.

    It finds the end, and most of what cannot be JSON as early as it comes: so that a request
    which was cut off swallows as little as can be of the next one.
    """

    def __init__(self) -> None:
        self.text = bytearray()
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self._after_string = False

    def feed(self, chunk: bytes, start: int) -> int | None:
        """Take bytes from index ``start`` on; return the index behind the text's end, None if the
        end is still to come. Raises `BrokenJson`: the byte at its index is not taken.
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
        """Take a byte outside of strings; whether it ends the text."""
        if byte in _BLANKS:
            return False
        self._after_string = False
        self._in_string = byte == _QUOTE
        self._depth += (byte in _OPENING) - (byte in _CLOSING)
        return self._depth == 0
