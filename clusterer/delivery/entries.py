"""One entry of a log, as Redis sends it: checked before a byte of it goes to a node."""

from __future__ import annotations

from clusterer.delivery.frames import are_frames
from clusterer.membership.views import ClusterKey
from clusterer.store.format import FORMAT

MAX_SEQUENCE = 2**53 - 1
"""Largest sequence that Redis's Lua can count to: an entry behind it is not append.lua's."""

_NAMES = [b"cluster", b"protocol", b"n", b"packets", b"frames"]
"""Fields in the order in which append.lua writes them, behind the format."""
_WRITTEN = [b"format", *_NAMES]
_FORMAT = b"%d" % FORMAT
_FORMATS = frozenset(b"%d" % number for number in range(1, FORMAT + 1))
"""Formats whose entries have the fields of today; a log may have entries of all of them."""


class Unreadable(Exception):
    """An entry of this format, or without a format, that append.lua cannot have written."""


class NotOurs(Exception):
    """An entry of a format that this version does not know."""

    def __init__(self, entry_format: str) -> None:
        super().__init__(entry_format)
        self.format = entry_format


Entry = tuple[bytes, bytes, int, int, bytes]
"""Cluster_id, protocol, the last packet's count in the cluster, number of packets, frames."""


def read_entry(fields: list[bytes]) -> Entry:
    """Return the values of an entry's flat fields. Raises `Unreadable`, `NotOurs`."""
    if len(fields) == 2 * len(_WRITTEN) and fields[1] == _FORMAT and fields[::2] == _WRITTEN:
        _, _, _, cluster, _, protocol, _, n, _, packets, _, frames = fields
    else:
        cluster, protocol, n, packets, frames = _read_slowly(fields)
    try:
        count, last_n = int(packets), int(n)
    except ValueError:
        raise Unreadable("n or packets is not a number") from None
    if not 0 < count <= last_n <= MAX_SEQUENCE:
        raise Unreadable(f"{count} packets cannot end with the {last_n}th of a cluster")
    if not are_frames(frames, count):
        raise Unreadable(f"frames are not {count} whole BIN frames")
    return cluster, protocol, last_n, count, frames


def _read_slowly(fields: list[bytes]) -> list[bytes]:
    """Return the values of an entry that does not begin with the present format."""
    names, values = fields[::2], fields[1::2]
    if names == _WRITTEN and values[0] in _FORMATS:
        return values[1:]
    if b"format" in names:
        found = values[names.index(b"format")]
        if found.isdigit() and int(found[:9]) > FORMAT:
            raise NotOurs(found[:9].decode())
    elif names == _NAMES:
        return values  # written before entries had a format
    raise Unreadable("fields are not those of an entry")


def cluster_of(cluster: bytes, protocol: bytes) -> ClusterKey:
    """Return the cluster that an entry is for. Raises `Unreadable`."""
    if not cluster.isdigit() or not 0 < int(cluster[:11]) < 2**31 or not protocol.isalnum():
        raise Unreadable("cluster or protocol is not a name of a cluster")
    return ClusterKey(int(cluster), protocol.decode())
