"""Readers of the fields of a packet."""

from __future__ import annotations

from clusterer.errors import WireError
from clusterer.wire.layout import INT
from clusterer.wire.layout3 import STR_LENGTH


class FieldReader:
    """Reads the fields of a packet in the order in which the sender pushed them.

    BIN has no type tags: the caller must know the type of the next field.
    """

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes, at: int = 0) -> None:
        self._data = data
        self._at = at

    @property
    def remaining(self) -> int:
        """Bytes not read yet."""
        return len(self._data) - self._at

    def pop_int(self) -> int | None:
        """Return the next signed 32-bit integer, None when nothing is left.

        Raises `WireError` when fewer than 4 bytes are left.
        """
        at = self._at
        left = len(self._data) - at
        if left < INT.size:
            if left == 0:
                return None
            raise WireError(f"integer cut off: {left} of 4 bytes at field offset {at}")
        self._at = at + INT.size
        value: int = INT.unpack_from(self._data, at)[0]
        return value

    def pop_str(self) -> bytes | None:
        """Return the next string's bytes, None when nothing is left.

        Raises `WireError` when its length is negative or runs past the frame.
        """
        at = self._at
        length = self.pop_int()
        if length is None:
            return None
        start = self._at
        end = start + length
        if length < 0 or end > len(self._data):
            self._at = at
            raise WireError(
                f"string cut off: length {length}, {len(self._data) - start} bytes left "
                f"at field offset {at}"
            )
        self._at = end
        return self._data[start:end]


class FieldReader3(FieldReader):
    """The same for a packet of OpenSIPS 3.x, whose strings have a length of 2 bytes."""

    __slots__ = ()

    def pop_str(self) -> bytes | None:
        """Return the next string's bytes, None when nothing is left.

        Raises `WireError` when its length is cut off or runs past the fields.
        """
        at, data = self._at, self._data
        left = len(data) - at
        if left < STR_LENGTH.size:
            if left == 0:
                return None
            raise WireError(f"length of a string cut off: 1 of 2 bytes at field offset {at}")
        start = at + STR_LENGTH.size
        end = start + int(STR_LENGTH.unpack_from(data, at)[0])
        if end > len(data):
            raise WireError(
                f"string cut off: length {end - start}, {len(data) - start} bytes left "
                f"at field offset {at}"
            )
        self._at = end
        return data[start:end]

    def pop_bytes(self, size: int) -> bytes:
        """Return the next ``size`` bytes, which have no length of their own.

        Raises `WireError` when ``size`` is negative or runs past the fields.
        """
        start = self._at
        if not 0 <= size <= self.remaining:
            raise WireError(f"{size} bytes at field offset {start}, {self.remaining} bytes left")
        self._at = start + size
        return self._data[start : self._at]
