"""Fields of the packets of `clusterer-internal`: a missing or negative one is a `WireError`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from struct import error as StructError  # noqa: N812 - a class, whatever its name
from struct import pack, unpack
from typing import TypeVar

from clusterer.errors import WireError
from clusterer.wire import PacketBuilder3
from clusterer.wire.layout import INT
from clusterer.wire.reader import FieldReader3

T = TypeVar("T")


class Fields:
    """Reads the fields of one message. Each method raises `WireError` for a missing field."""

    def __init__(self, reader: FieldReader3) -> None:
        self._reader = reader

    def number(self) -> int:
        """Return the next integer."""
        value = self._reader.pop_int()
        if value is None:
            raise WireError("a field is missing")
        return value

    def flag(self) -> bool:
        """Return whether the next integer is not 0."""
        return self.number() != 0

    def text(self) -> str:
        """Return the next string as text, bytes that are not UTF-8 as surrogates."""
        value = self._reader.pop_str()
        if value is None:
            raise WireError("a field is missing")
        return value.decode("utf-8", "surrogateescape")

    def items(self, read: Callable[[], T]) -> tuple[T, ...]:
        """Return as many items as the next integer says.

        Each item takes at least one byte: a count beyond the end of the packet ends there.
        """
        return tuple(read() for _ in range(self._count()))

    def ids(self) -> tuple[int, ...]:
        """Return a list of node ids: of all at once, since a topology of 128 nodes has 16,000."""
        count = self._count()
        return unpack(f"<{count}i", self._reader.pop_bytes(INT.size * count))

    def _count(self) -> int:
        count = self.number()
        if count < 0:
            raise WireError(f"a list has {count} items")
        return count

    def end(self) -> None:
        """Raise `WireError` if bytes are left."""
        if self._reader.remaining:
            raise WireError(f"{self._reader.remaining} bytes follow the last field")


def push_ids(builder: PacketBuilder3, ids: Iterable[int]) -> None:
    """Append a list of node ids. Raises as `PacketBuilder.push_int`."""
    numbers = tuple(ids)
    builder.push_int(len(numbers))
    try:
        builder.push_bytes(pack(f"<{len(numbers)}i", *numbers))
    except StructError:  # a number is out of range: the error of `push_int` names it
        for number in numbers:  # pragma: no branch - one of them raises
            builder.push_int(number)
