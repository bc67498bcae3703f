"""Layout of a BIN frame of OpenSIPS 3.x. Source: docs/wire3.md, checked with 3.1.17 to 4.0.1.

All numbers are little-endian; an integer field is the same as in 2.2.
"""

from __future__ import annotations

from struct import Struct

HEADER = Struct("<4sIhH")
"""Marker, frame length, version of the capability, length of the capability's name."""

NAME_AT = 12
"""Offset of the capability's name."""

STR_LENGTH = Struct("<H")
"""Length of a string field, directly before its bytes."""

IDS = Struct("<ii")
"""Cluster_id and source node, with which the body of `INTERNAL` packets begins."""

TRAILER = Struct("<iii")
"""Cluster_id, source node, destination node: the end of every packet but those of `INTERNAL`."""

BRIDGE_TRAILER = Struct("<iiii")
"""Source cluster, destination cluster, source node, `BRIDGE`: the end of a packet from another
cluster (4.0)."""

BRIDGE = -0x4000_0000
"""Destination node of a packet from another cluster: 0xC0000000 as a signed integer."""

INTERNAL = "clusterer-internal"
"""Capability of the topology's packets."""

EXTRA = "clusterer-extra"
"""Capability of the clusterer's other packets: messages, commands, syncs and sharing tags."""

CONTROL = frozenset({INTERNAL, EXTRA})
"""The capabilities of the clusterer itself; all others are of modules."""

MIN_FRAME = 17
"""Bytes of the smallest legal frame: header, a name of one byte, packet type."""

MAX_FRAME = 65_535
"""Bytes of the largest frame that 3.x sends."""

MAX_BUILT = 65_515
"""Bytes of the largest frame that every version accepts: 4.0 keeps 20 bytes back."""
