"""Which nodes of a cluster changed since a local copy was read: the cluster's events say so.

Each change of a node counts the cluster's version up by one and adds an event with that version. A
copy remembers the id of the event of its version. If the stream still has that event, and after
it one of each version up to the present one, the nodes named there are all that changed. In any
other case (trimmed, lost, of a wrong type, of another data set, a counter that a reload repaired or
an operator changed) the copy has to be read in full.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import redis

from clusterer.membership import Node
from clusterer.membership.views import ClusterKey, ClusterView
from clusterer.store import keys
from clusterer.store.badvalues import Command, WrongType, collected, ids, read_all, text
from clusterer.store.encoding import decode_node

_LAST = 10
"""Events among which that of a version read a moment before is."""

_MOST_EVENTS = 1000
"""Events that are looked through; after more of them, the cluster is read in full."""

Fields = Mapping[bytes, bytes]
Events = Sequence[tuple[bytes, Fields]]

Raw = Sequence[tuple[bytes, Fields | Sequence[bytes]]]
"""Events as a client gives them: those of delivery workers leave an entry's fields in a list."""


def last(key: ClusterKey) -> Command:
    """Return what asks for the last events of a cluster."""
    return "xrevrange", keys.events(key.cluster_id), "+", "-", _LAST


def mark_of(key: ClusterKey, events: Raw, version: int | None) -> str:
    """Return the mark of a copy read at ``version``, from the reply to `last`."""
    found = (text(at) for at, fields in _read(events) if _version(key, fields) == version)
    return next(found, "") if version else ""


def updated(client: redis.Redis, known: ClusterView, version: int) -> ClusterView | None:
    """Return the view with what changed until ``version`` or later; None if it is to be read whole.

    Costs two round trips and a command for each node that changed.
    """
    if not known.mark or version < known.version:
        return None
    name = keys.events(known.key.cluster_id)
    (events,) = read_all(client, [("xrange", name, known.mark, "+", _MOST_EVENTS)])
    if not events or text(events[0][0]) != known.mark:
        return None
    own = [(at, fields) for at, fields in _read(events) if _version(known.key, fields) is not None]
    reached = _reached(known, own)
    if reached < version:
        return None
    with collected() as problems:
        changed = ids(name, {fields.get(b"machine_id", b"") for _, fields in own[1:]})
    return None if problems else _applied(client, known, changed, reached, text(own[-1][0]))


def _read(events: Raw) -> Events:
    return [(at, _pairs(fields)) for at, fields in events]


def _pairs(fields: Fields | Sequence[bytes]) -> Fields:
    if isinstance(fields, Mapping):
        return fields
    return dict(zip(fields[::2], fields[1::2], strict=True))


def _version(key: ClusterKey, fields: Fields) -> int | None:
    """Return the version that an event of the cluster has; None if it is of another one."""
    version = fields.get(b"version", b"")
    if fields.get(b"protocol") != key.protocol.encode() or not version.isdigit():
        return None
    return int(version)


def _reached(known: ClusterView, own: Events) -> int:
    """Return the version that the events lead to without a gap, -1 if there is one.

    An event that changed nothing has an earlier version, and so has one after the counter went
    back: its node is read like the others.
    """
    reached = known.version
    for _, fields in own[1:]:
        version = _version(known.key, fields) or 0
        if version > reached + 1:
            return -1
        reached = max(reached, version)
    return reached


def _applied(
    client: redis.Redis, known: ClusterView, changed: Sequence[int], version: int, mark: str
) -> ClusterView | None:
    key = known.key
    commands: list[Command] = [("hgetall", keys.node(*key, machine_id)) for machine_id in changed]
    members, *hashes = read_all(client, [("smismember", keys.nodes(*key), changed), *commands])
    if isinstance(members, WrongType):
        return None
    nodes: dict[int, Node] = dict(known.nodes)
    with collected() as problems:
        for machine_id, is_member, data in zip(changed, members, hashes, strict=True):
            nodes.pop(machine_id, None)
            node = decode_node(key, machine_id, data) if is_member else None
            if node is not None:
                nodes[machine_id] = node
            elif is_member:
                return None
    return None if problems else ClusterView.of(key, version, nodes.values(), mark)
