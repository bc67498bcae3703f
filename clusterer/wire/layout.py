"""Layout of a BIN 2.2 frame. Source: docs/wire.md, checked with OpenSIPS 2.2.8."""

from __future__ import annotations

from struct import Struct

MARKER = b"P4CK"

HEADER = Struct("<4sHxxhxxi")
"""Marker, frame length, 2 undefined bytes, version, 2 undefined bytes, length of the name."""

LENGTH = Struct("<H")
"""Frame length alone, directly after the marker."""

NAME_AT = 16
"""Offset of the module name."""

INT = Struct("<i")
"""Every integer on the wire: 4 bytes, signed, little-endian."""

INTS = Struct("<ii")
"""Packet type and machine_id, which follow the name."""

MIN_FRAME = 20
"""Bytes of the smallest legal frame: header, name length and packet type, with an empty name."""

MAX_FRAME = 65_535
"""Bytes of the largest frame: the length field has 16 bits."""

INT_MIN, INT_MAX = -(2**31), 2**31 - 1
SHORT_MIN, SHORT_MAX = -(2**15), 2**15 - 1
