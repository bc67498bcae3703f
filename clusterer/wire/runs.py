"""Fast decoding of frames of one shape: peers mostly send the same message repeatedly.

One unpack reads a whole frame, instead of three and slices: on runs of frames of one shape that is
two and a half times as fast.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct

from clusterer.wire.layout import INTS, NAME_AT
from clusterer.wire.packet import Packet

_START_SIZE = 6
_HEAD_AT = 12

_new = tuple.__new__  # the constructor of a named tuple takes twice as long


@lru_cache(maxsize=256)
def _layout(length: int, name_length: int) -> Struct:
    """Marker with length; version; length of the name with the name; type; machine_id; fields."""
    head = NAME_AT - _HEAD_AT + name_length
    return Struct(f"<{_START_SIZE}sxxhxx{head}sii{length - _HEAD_AT - head - INTS.size}s")


class Shape:
    """Frames of one length and one module name, with a machine_id."""

    __slots__ = ("_head", "_layout", "_name", "_start", "length")

    def __init__(self, data: bytes, at: int, packet: Packet, length: int, name_length: int) -> None:
        """Take the shape of the frame at ``at`` in ``data``, which is ``packet``."""
        self.length = length
        self._layout = _layout(length, name_length)
        self._name = packet.module
        self._start = data[at : at + _START_SIZE]
        self._head = data[at + _HEAD_AT : at + NAME_AT + name_length]

    def read(self, data: bytes, at: int, packets: list[Packet]) -> int:
        """Append the packets of this shape from ``at`` on; return the end of the last one."""
        before = len(packets)
        whole = (len(data) - at) // self.length * self.length
        start, head, name = self._start, self._head, self._name
        append = packets.append
        frames = self._layout.iter_unpack(memoryview(data)[at : at + whole])
        for its_start, version, its_head, kind, sender, payload in frames:
            if its_start != start or its_head != head:
                break
            append(_new(Packet, (name, kind, sender, payload, version, None)))
        return at + (len(packets) - before) * self.length


def has_shape(length: int, name_length: int) -> bool:
    """Return whether a frame has room for the machine_id that every `Shape` has."""
    return length >= NAME_AT + name_length + INTS.size
