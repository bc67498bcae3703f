"""A BIN packet, and its builder."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from struct import Struct
from struct import error as StructError  # noqa: N812 - a class, whatever its name
from typing import NamedTuple

from clusterer.errors import FrameTooLarge, InvalidArgument
from clusterer.wire import frame3
from clusterer.wire.frame3 import Trailer
from clusterer.wire.layout import (
    HEADER,
    INT,
    INT_MAX,
    INT_MIN,
    INTS,
    MARKER,
    MAX_FRAME,
    NAME_AT,
    SHORT_MAX,
    SHORT_MIN,
)
from clusterer.wire.numbers import require_range
from clusterer.wire.reader import FieldReader, FieldReader3
from clusterer.wire.required_keys import KEYS, require_keys


class Packet(NamedTuple):
    """A BIN packet, frozen. A named tuple, because the decoder makes one per received frame, and a
    frozen dataclass takes four times as long to make.
    """

    module: str
    """Module name; bytes that are not UTF-8 become surrogates (surrogateescape)."""
    type: int
    """Packet type, signed 32 bit; the module defines its meaning."""
    machine_id: int | None
    """The sender's machine_id, None if the frame has none."""
    payload: bytes = b""
    """The fields of the module: all bytes after the machine_id."""
    version: int = 1
    """Packet version, signed 16 bit; the modules of 2.2 use 1."""
    trailer: Trailer | None = None
    """The cluster and destination that a packet of OpenSIPS 3.x names; None: a packet of 2.2."""

    def fields(self) -> FieldReader:
        """Return a reader of the fields of the module."""
        return FieldReader(self.payload) if self.trailer is None else FieldReader3(self.payload)

    def require_keys(self) -> None:
        """Raise `InvalidArgument` for a packet with an empty key, which crashes OpenSIPS 2.2.8.

        For packets that no `PacketBuilder` built, such as received ones that are sent on.
        """
        require_keys(self.module, self.type, self.version, self.payload)

    def encode(self) -> bytes:
        """Return the frame, with zeros for the bytes that BIN does not define.

        Raises `FrameTooLarge` beyond 65,535 bytes, `InvalidArgument` for a number out of range.
        """
        module, kind, machine_id, payload, version, trailer = self
        if trailer is not None:
            return frame3.encode(module, kind, machine_id, payload, version, trailer)
        if type(module) is str:  # the cache takes no other objects: they may equal a str
            pack, size, name = _start(module)
            try:
                start = pack(
                    MARKER, size + len(payload), version, len(name), name, kind, machine_id
                )
            except StructError:
                pass  # no machine_id, or a number out of range, the length included
            else:
                return start + payload
        return self._encode_with_care()

    def _encode_with_care(self) -> bytes:
        name = _encoded("module", self.module)
        kind = _int(self.type, "packet type")
        sender = b"" if self.machine_id is None else _int(self.machine_id, "machine_id")
        if not sender and len(self.payload) >= INT.size:
            raise InvalidArgument(
                f"{self.module[:40]} packet of type {self.type} has fields but no machine_id: "
                "the receiver would read the first field as the machine_id"
            )
        length = NAME_AT + len(name) + len(kind) + len(sender) + len(self.payload)
        if length > MAX_FRAME:
            raise _too_large(self.module, self.type, length)
        require_range("packet version", self.version, SHORT_MIN, SHORT_MAX)
        head = HEADER.pack(MARKER, length, self.version, len(name))
        return b"".join((head, name, kind, sender, self.payload))


class PacketBuilder:
    """Builds a packet field by field; every push returns the builder."""

    __slots__ = ("_machine_id", "_module", "_parts", "_size", "_type", "_version")

    _MOST = MAX_FRAME

    def __init__(self, module: str, type: int, machine_id: int, version: int = 1) -> None:
        """Start a packet of ``module``; ``machine_id`` becomes its first field.

        Raises `InvalidArgument` for a number out of range or a name that is not a str,
        `FrameTooLarge` for a name longer than a frame.
        """
        name = _encoded("module", module)
        self._module = module
        self._type = require_range("packet type", type, INT_MIN, INT_MAX)
        self._machine_id = require_range("machine_id", machine_id, INT_MIN, INT_MAX)
        self._version = require_range("packet version", version, SHORT_MIN, SHORT_MAX)
        self._parts: list[bytes] = []
        self._size = NAME_AT + len(name) + INTS.size
        if self._size > MAX_FRAME:
            raise _too_large(module, type, self._size)

    @property
    def size(self) -> int:
        """Bytes of the frame with the fields pushed so far."""
        return self._size

    def push_int(self, value: int) -> PacketBuilder:
        """Append a signed 32-bit integer.

        Raises `InvalidArgument` out of that range; `FrameTooLarge`, without a change, if the frame
        would exceed 65,535 bytes.
        """
        return self._push(_int(value, "integer field"))

    def push_str(self, value: bytes | str) -> PacketBuilder:
        """Append a string: bytes unchanged, text as UTF-8 (with surrogateescape).

        Raises `FrameTooLarge`, without a change, if the frame would exceed 65,535 bytes.
        """
        data = as_field(value)
        return self._push(INT.pack(len(data)) + data)

    def build(self) -> Packet:
        """Return the packet; further pushes and builds are allowed.

        Raises `InvalidArgument`, naming module, type and field, for a packet of ``ratelimit``,
        ``dialog`` or ``ul`` with an empty key, which crashes OpenSIPS 2.2.8.
        """
        payload = b"".join(self._parts)
        packet = Packet(self._module, self._type, self._machine_id, payload, self._version)
        if self._module in KEYS:
            packet.require_keys()
        return packet

    @staticmethod
    def _too_large(module: str, kind: int, size: int) -> FrameTooLarge:
        return _too_large(module, kind, size)

    def _push(self, data: bytes) -> PacketBuilder:
        size = self._size + len(data)
        if size > self._MOST:
            raise self._too_large(self._module, self._type, size)
        self._size = size
        self._parts.append(data)
        return self


@lru_cache(maxsize=256)
def _start(module: str) -> tuple[Callable[..., bytes], int, bytes]:
    """Return what packs all of a frame before the payload, the number of bytes, and the name."""
    name = _encoded("module", module)
    packed = Struct(f"{HEADER.format}{len(name)}s{INTS.format[1:]}")
    return packed.pack, packed.size, name


def _encoded(name: str, value: object) -> bytes:
    if not isinstance(value, str):
        raise InvalidArgument(f"{name} must be str, not {value!r}")
    try:
        return value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise InvalidArgument(f"{name} {value[:40]!r} is not UTF-8: {error.reason}") from error


def _int(value: object, name: str) -> bytes:
    return INT.pack(require_range(name, value, INT_MIN, INT_MAX))


def _too_large(module: str, kind: int, size: int) -> FrameTooLarge:
    return FrameTooLarge(
        f"{module[:40]} packet of type {kind} takes {size} bytes, "
        f"a BIN frame has at most {MAX_FRAME}"
    )


def as_field(value: bytes | str) -> bytes:
    """Return the bytes of a string field, text as UTF-8; raise `InvalidArgument` for others."""
    if isinstance(value, str):
        return _encoded("string field", value)
    if not isinstance(value, bytes | bytearray | memoryview):
        raise InvalidArgument(f"string field must be bytes or str, not {value!r}")
    return bytes(value)
