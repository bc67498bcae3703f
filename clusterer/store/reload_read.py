"""Reads clusters for a reload: the nodes, their usable values, and the faults of all keys."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import redis

from clusterer.membership import Node
from clusterer.membership.reload_plan import Damaged, Snapshot
from clusterer.membership.repairs import Keeping
from clusterer.membership.views import ClusterKey, ClusterView
from clusterer.store import keys
from clusterer.store.badvalues import (
    Command,
    WrongType,
    collected,
    ids,
    read_all,
    text,
    wrong_types,
)
from clusterer.store.encoding import decoded_fields
from clusterer.store.nodes import cluster_key, version_of

_OURS = re.compile(r"clusterer:(\d+:[^:]+):(nodes|node:(\d+)|version|due|dirty|synced)", re.DOTALL)
_ID = re.compile(r"[1-9]\d{0,9}", re.ASCII)
_SCAN = "clusterer:[0-9]*"


@dataclass(frozen=True, slots=True)
class Found:
    """All clusters with a key in Redis, in the set of clusters or not."""

    listed: frozenset[ClusterKey] = frozenset()
    set_is_wrong: bool = False
    """Whether the set of clusters holds another type, or members that are no clusters."""
    hashes: Mapping[ClusterKey, frozenset[int]] = field(default_factory=dict)
    """Clusters with a key, each with the machine_ids of nodes that have a key."""

    @property
    def clusters(self) -> list[ClusterKey]:
        """All clusters."""
        return sorted(self.listed | self.hashes.keys())


def find(client: redis.Redis) -> Found:
    """Return all clusters with a key. Takes a scan."""
    with collected() as problems:
        (names,) = read_all(client, [("smembers", keys.CLUSTERS)])
        listed = frozenset(filter(None, map(cluster_key, names)))
    hashes: dict[ClusterKey, set[int]] = {}
    for name in client.scan_iter(match=_SCAN, count=1000):
        match = _OURS.fullmatch(text(name))
        key = _cluster(match[1]) if match else None
        if match is not None and key is not None:
            found = hashes.setdefault(key, set())
            found |= {int(match[3])} if match[3] else set()
    return Found(listed, bool(problems), {key: frozenset(found) for key, found in hashes.items()})


def _cluster(name: str) -> ClusterKey | None:
    try:
        return ClusterKey.parse(name)
    except ValueError:
        return None


def read(
    client: redis.Redis, wanted: Sequence[ClusterKey], found: Found | None = None
) -> dict[ClusterKey, Snapshot]:
    """Return snapshots of the clusters ``wanted``; an unknown cluster has an empty snapshot.

    With ``found`` the snapshots also have the faults of other keys than the nodes' hashes.
    """
    with collected():  # the reload repairs these values: no log lines
        # The version comes first: a later change makes the commit fail.
        replies = iter(read_all(client, [command for key in wanted for command in _beside(key)]))
        parts = {key: _Parts.of(key, *islice(replies, _BESIDE), found=found) for key in wanted}
        places = [(key, i) for key, part in parts.items() for i in part.machines]
        hashes = read_all(client, [("hgetall", keys.node(*key, i)) for key, i in places])
        data: dict[ClusterKey, dict[int, Any]] = {key: {} for key in wanted}
        for (key, machine_id), fields in zip(places, hashes, strict=True):
            data[key][machine_id] = fields
        wrong = _wrong(client, wanted) if found is not None else {}
    return {key: _snapshot(parts[key], data[key], found, wrong.get(key, ())) for key in wanted}


_BESIDE = 5


def _beside(key: ClusterKey) -> Iterator[Command]:
    yield "get", keys.version(*key)
    yield "smembers", keys.nodes(*key)
    yield "zrange", keys.due(*key), 0, -1, False, True
    yield "zrange", keys.dirty(*key), 0, -1
    yield "hgetall", keys.synced(*key)


@dataclass(frozen=True, slots=True)
class _Parts:
    """The values of a cluster's keys, without the hashes of its nodes."""

    key: ClusterKey
    version: int | None
    members: frozenset[int]
    due_ms: Mapping[int, float]
    dirty: frozenset[int]
    synced: Mapping[int, str]
    machines: tuple[int, ...]
    """All machine_ids that may have a hash."""
    raw: Mapping[str, Collection[bytes]]
    """Members and fields as Redis has them, by key."""

    @classmethod
    def of(  # noqa: PLR0917 - the replies to `_beside`, in order
        cls,
        key: ClusterKey,
        version: bytes | None,
        members: Collection[bytes],
        due: Sequence[tuple[bytes, float]],
        dirty: Sequence[bytes],
        synced: Mapping[bytes, bytes],
        *,
        found: Found | None,
    ) -> _Parts:
        own = frozenset(ids(keys.nodes(*key), members))
        times = dict(due)
        hashed = found.hashes.get(key, frozenset()) if found is not None else frozenset()
        return cls(
            key,
            version_of(key, version),
            own,
            {i: times[b"%d" % i] for i in ids(keys.due(*key), times)},
            frozenset(ids(keys.dirty(*key), dirty)),
            {i: text(synced[b"%d" % i]) for i in ids(keys.synced(*key), synced)},
            tuple(sorted(own | hashed)),
            {
                keys.nodes(*key): members,
                keys.due(*key): times,
                keys.dirty(*key): dirty,
                keys.synced(*key): synced,
            },
        )


def _snapshot(
    parts: _Parts, data: Mapping[int, Any], found: Found | None, wrong: Sequence[str]
) -> Snapshot:
    key, nodes = parts.key, list[Node]()
    damaged: dict[int, Damaged] = {}
    for machine_id, fields in data.items():
        values, bad_fields = decoded_fields(key, machine_id, fields)
        if fields and not bad_fields:
            nodes.append(Node(**values))
        elif fields or isinstance(fields, WrongType):
            damaged[machine_id] = Damaged(values, tuple(bad_fields))
    view = ClusterView.of(key, parts.version or 0, nodes)
    if found is None:
        return Snapshot(view, parts.dirty, parts.synced, damaged)
    there = {b"%d" % i for i, fields in data.items() if fields}
    keeping = Keeping(
        listed=key in found.listed,
        members=parts.members,
        damaged=frozenset(damaged),
        due_ms=parts.due_ms,
        strangers=tuple(
            (name, member)
            for name, members in parts.raw.items()
            for member in members
            if member not in there and not _is_id(member, name, key)
        ),
        wrong=tuple(wrong),
        version=parts.version,
    )
    return Snapshot(view, parts.dirty, parts.synced, damaged, keeping)


def _is_id(member: bytes, name: str, key: ClusterKey) -> bool:
    """Whether the plan itself deals with a member, because it is an id in the set of nodes."""
    return name == keys.nodes(*key) and bool(_ID.fullmatch(text(member)))


def _wrong(client: redis.Redis, wanted: Sequence[ClusterKey]) -> dict[ClusterKey, list[str]]:
    """Return for each cluster the keys that hold a wrong type, except the nodes' hashes."""
    names = {key: cluster_keys(key)[1:] for key in wanted}
    found = {each.key for each in wrong_types(client, [n for some in names.values() for n in some])}
    return {key: [name for name in some if name in found] for key, some in names.items()}


def cluster_keys(key: ClusterKey) -> list[str]:
    """Return the keys of a cluster except its nodes' hashes, in the order of the script."""
    own = [of(*key) for of in (keys.nodes, keys.version, keys.due, keys.dirty, keys.synced)]
    return [keys.CLUSTERS, *own, keys.events(key.cluster_id)]


def prober_keys(key: ClusterKey) -> list[str]:
    """Return the keys of a cluster's suspicions and probers, as the script wants them."""
    return [of(*key) for of in (keys.suspicions, keys.confirmed, keys.probers, keys.probers_ring)]
