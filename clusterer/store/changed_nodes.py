"""Finds in a cluster's events the nodes that changed since a process read its snapshot.

Each change of a node counts the cluster's version up by one and adds an event with that version. A
snapshot keeps the id of the event of its version. If the stream still has that event, and after it
an event of each version up to the present one, exactly the nodes of these events have changed. In
any other case (events trimmed, lost, of a wrong type or of another data set, a counter that a
reload repaired or an operator changed) the process reads the cluster in full.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import redis

from clusterer.membership import Node
from clusterer.membership.views import ClusterKey, ClusterView
from clusterer.store import keys
from clusterer.store.badvalues import Command, WrongType, collected, ids, pairs, read_all, text
from clusterer.store.encoding import decode_node

_LAST = 10
"""Last events to read: the event of a version read a moment before is among them."""

_MOST_EVENTS = 1000
"""Most events to search; after more of them `updated` gives up."""

Fields = Mapping[bytes, bytes]
Events = Sequence[tuple[bytes, Fields]]

Raw = Sequence[tuple[bytes, Fields | Sequence[bytes]]]
"""Events as a client returns them: delivery workers' clients return an entry's fields as a list."""


def last(key: ClusterKey) -> Command:
    """Return the command that reads the last events of a cluster."""
    return "xrevrange", keys.events(key.cluster_id), "+", "-", _LAST


def mark_of(key: ClusterKey, events: Raw, version: int | None) -> str:
    """Return the mark of a snapshot read at ``version``, from the reply to `last`."""
    found = (text(at) for at, fields in _read(events) if _version(key, fields) == version)
    return next(found, "") if version else ""


def updated(client: redis.Redis, known: ClusterView, version: int) -> ClusterView | None:
    """Return the view at ``version`` or later; None if the cluster must be read in full.

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
    return [(at, item if isinstance(item, Mapping) else pairs(item)) for at, item in events]


def _version(key: ClusterKey, fields: Fields) -> int | None:
    """Return the version of an event; None for an event of another cluster."""
    version = fields.get(b"version", b"")
    if fields.get(b"protocol") != key.protocol.encode() or not version.isdigit():
        return None
    return int(version)


def _reached(known: ClusterView, own: Events) -> int:
    """Return the version that the events reach without a gap, -1 after a gap.

    An event that changed nothing has an earlier version, like an event after the counter went
    back; `updated` reads the nodes of both.
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
