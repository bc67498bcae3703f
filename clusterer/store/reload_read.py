"""Reads clusters for a reload: the nodes, their usable values, and the faults of all keys."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, NamedTuple

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
    scan,
    text,
    wrong_types,
)
from clusterer.store.client import Store, translated
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


class ReloadReads(Store):
    """Reads clusters for the planner of a reload."""

    def find(self) -> Found:
        """Return all clusters with a key in Redis. Takes a scan."""
        hashes: dict[ClusterKey, set[int]] = {}
        with translated(self._settings, "list the clusters"):
            with collected() as problems:
                (names,) = read_all(self._client, [("smembers", keys.CLUSTERS)])
                listed = frozenset(filter(None, map(cluster_key, names)))
            for name in scan(self._client, _SCAN):
                match = _OURS.fullmatch(name)
                key = _cluster(match[1]) if match else None
                if match is not None and key is not None:
                    hashes.setdefault(key, set()).update({int(match[3])} if match[3] else ())
        found = {key: frozenset(machine_ids) for key, machine_ids in hashes.items()}
        return Found(listed, bool(problems), found)

    def read(
        self, wanted: Sequence[ClusterKey], found: Found | None = None
    ) -> dict[ClusterKey, Snapshot]:
        """Return snapshots of the clusters ``wanted``; an unknown cluster has an empty snapshot.

        With ``found`` the snapshots also have the faults of other keys than the nodes' hashes.
        """
        client, hashed = self._client, found.hashes if found is not None else {}
        # The reload repairs what is reported here: no log lines.
        with translated(self._settings, "read the clusters"), collected():
            # The version comes first: a later change makes the commit fail.
            replies = iter(read_all(client, [each for key in wanted for each in _beside(key)]))
            beside = {key: _Beside(*islice(replies, len(_Beside._fields))) for key in wanted}
            members = {key: ids(keys.nodes(*key), each.members) for key, each in beside.items()}
            versions = {key: version_of(key, each.version) for key, each in beside.items()}
            data = _hashes(client, members, hashed)
            snapshots = {
                key: _snapshot(key, versions[key] or 0, beside[key], data[key]) for key in wanted
            }
            if found is None:
                return snapshots
            wrong = _wrong(client, wanted)
            return {
                key: replace(
                    each,
                    keeping=Keeping(
                        listed=key in found.listed,
                        members=frozenset(members[key]),
                        damaged=frozenset(each.damaged),
                        due_ms=_due_ms(key, beside[key]),
                        strangers=tuple(_strangers(key, beside[key], data[key])),
                        wrong=tuple(wrong[key]),
                        version=versions[key],
                    ),
                )
                for key, each in snapshots.items()
            }


def _cluster(name: str) -> ClusterKey | None:
    try:
        return ClusterKey.parse(name)
    except ValueError:
        return None


class _Beside(NamedTuple):
    """The values of a cluster's keys, without the hashes of its nodes."""

    version: bytes | None
    members: Collection[bytes]
    due: Sequence[tuple[bytes, float]]
    dirty: Sequence[bytes]
    synced: Mapping[bytes, bytes]


def _beside(key: ClusterKey) -> Iterator[Command]:
    """Yield the commands whose replies are a `_Beside`."""
    yield "get", keys.version(*key)
    yield "smembers", keys.nodes(*key)
    yield "zrange", keys.due(*key), 0, -1, False, True
    yield "zrange", keys.dirty(*key), 0, -1
    yield "hgetall", keys.synced(*key)


def _hashes(
    client: redis.Redis,
    members: Mapping[ClusterKey, Collection[int]],
    hashed: Mapping[ClusterKey, Collection[int]],
) -> dict[ClusterKey, dict[int, Any]]:
    """Return the hashes of nodes, by machine_id: of ``members``, and those that a scan found."""
    places = [(key, i) for key in members for i in sorted({*members[key], *hashed.get(key, ())})]
    found = read_all(client, [("hgetall", keys.node(*key, i)) for key, i in places])
    data: dict[ClusterKey, dict[int, Any]] = {key: {} for key in members}
    for (key, machine_id), fields in zip(places, found, strict=True):
        data[key][machine_id] = fields
    return data


def _snapshot(key: ClusterKey, version: int, beside: _Beside, data: Mapping[int, Any]) -> Snapshot:
    nodes = list[Node]()
    damaged: dict[int, Damaged] = {}
    for machine_id, fields in data.items():
        values, bad_fields = decoded_fields(key, machine_id, fields)
        if fields and not bad_fields:
            nodes.append(Node(**values))
        elif fields or isinstance(fields, WrongType):
            damaged[machine_id] = Damaged(values, tuple(bad_fields))
    view = ClusterView.of(key, version, nodes)
    dirty = frozenset(ids(keys.dirty(*key), beside.dirty))
    noted = ids(keys.synced(*key), beside.synced)
    return Snapshot(view, dirty, {i: text(beside.synced[b"%d" % i]) for i in noted}, damaged)


def _due_ms(key: ClusterKey, beside: _Beside) -> dict[int, float]:
    times = dict(beside.due)
    return {i: times[b"%d" % i] for i in ids(keys.due(*key), times)}


def _strangers(
    key: ClusterKey, beside: _Beside, data: Mapping[int, Any]
) -> Iterator[tuple[str, bytes]]:
    """Yield key and member of what cannot be there, because there is no such node."""
    there = {b"%d" % i for i, fields in data.items() if fields}
    for of, members in (
        (keys.nodes, beside.members),
        (keys.due, dict(beside.due)),
        (keys.dirty, beside.dirty),
        (keys.synced, beside.synced),
    ):
        name = of(*key)
        for member in members:
            if member not in there and not _is_id(member, name, key):
                yield name, member


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
