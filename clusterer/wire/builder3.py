"""Builds packets of OpenSIPS 3.x."""

from __future__ import annotations

from clusterer.errors import FrameTooLarge
from clusterer.wire import frame3
from clusterer.wire.frame3 import Trailer
from clusterer.wire.layout import INT_MAX, INT_MIN, SHORT_MAX, SHORT_MIN
from clusterer.wire.layout3 import INTERNAL, MAX_BUILT, STR_LENGTH
from clusterer.wire.numbers import require_range
from clusterer.wire.packet import Packet, PacketBuilder, as_field


class PacketBuilder3(PacketBuilder):
    """The same as `PacketBuilder` for a cluster of OpenSIPS 3.x nodes.

    The packet names its cluster, and each frame of it its destination: the delivery fills that in.
    """

    __slots__ = ("_cluster_id",)

    _MOST = MAX_BUILT

    def __init__(
        self, capability: str, type: int, machine_id: int, version: int = 1, cluster_id: int = 1
    ) -> None:
        """Start a packet of ``capability`` with which ``machine_id`` sends to ``cluster_id``.

        Raises `InvalidArgument` for a number out of range, or a name that is not 1 to 255 ASCII
        characters.
        """
        frame3.require_name(capability)
        self._module = capability
        self._type = require_range("packet type", type, INT_MIN, INT_MAX)
        self._machine_id = require_range("machine_id", machine_id, INT_MIN, INT_MAX)
        self._version = require_range("packet version", version, SHORT_MIN, SHORT_MAX)
        self._cluster_id = require_range("cluster_id", cluster_id, INT_MIN, INT_MAX)
        self._parts = []
        self._size = frame3.size_without_fields(capability)

    def push_str(self, value: bytes | str) -> PacketBuilder:
        """Append a string: bytes unchanged, text as UTF-8 (with surrogateescape).

        Raises `FrameTooLarge`, without a change, if the frame would exceed 65,515 bytes.
        """
        data = as_field(value)
        if len(data) > MAX_BUILT:
            raise self._too_large(self._module, self._type, self._size + len(data))
        return self._push(STR_LENGTH.pack(len(data)) + data)

    def push_bytes(self, data: bytes) -> PacketBuilder:
        """Append ``data`` without a length. Raises `FrameTooLarge` as `push_str` does."""
        return self._push(data)

    def build(self) -> Packet:
        """Return the packet; further pushes and builds are allowed."""
        destination = None if self._module == INTERNAL else 0
        trailer = Trailer(self._cluster_id, destination)
        payload = b"".join(self._parts)
        return Packet(self._module, self._type, self._machine_id, payload, self._version, trailer)

    @staticmethod
    def _too_large(module: str, kind: int, size: int) -> FrameTooLarge:
        return frame3.too_large(module, kind, size)
