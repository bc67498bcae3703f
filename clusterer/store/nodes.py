"""Nodes in Redis: read as snapshots, changed by compare-and-set, every change audited."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import redis

from clusterer.errors import StateUnavailable, UnknownNode
from clusterer.membership import Event, Node, apply
from clusterer.membership.suspicions import Suspicion
from clusterer.membership.views import ClusterKey, ClusterView
from clusterer.settings import Settings
from clusterer.store import changed_nodes, keys
from clusterer.store.badvalues import (
    WrongType,
    bad,
    blame,
    ids,
    is_bad_data,
    read_all,
    scan,
    seen,
    text,
)
from clusterer.store.client import Store, seconds_of, translated
from clusterer.store.encoding import decode_node
from clusterer.store.format import require_format
from clusterer.store.node_change import EVENTS_CAP, Cause, Change, audit_fields
from clusterer.store.paths import PathStore

Versions = Mapping[ClusterKey, int | None]
"""Current version of each cluster; None where Redis has none that can be used."""

_VERSIONS = keys.version(0, "").replace("0:", "*")
"""Pattern of the version's key for a member of `keys.CLUSTERS`."""

_ATTEMPTS = 50
"""Compare-and-set rounds of a command before it gives up; in each lost round another change of
the node went through."""

_MOST_DIGITS = 18
"""Longest version of a cluster that is read."""


class NodeStore(Store):
    """Access to all clusters of one Redis. Safe to share between threads."""

    def __init__(self, settings: Settings, client: redis.Redis | None = None) -> None:
        super().__init__(settings, client)
        self._last: list[ClusterKey] = []
        """The clusters as they were last read: the set itself may hold a wrong type."""

    # -- reading ------------------------------------------------------------------------------

    def now(self) -> float:
        """Return Redis TIME, in UNIX seconds."""
        (time,) = self._read("read the time", ("time",))
        return seconds_of(time)

    def clusters(self) -> list[ClusterKey]:
        """Return the clusters that exist, in order."""
        with translated(self._settings, "list the clusters"):
            try:
                names: Any = self._client.smembers(keys.CLUSTERS)
            except redis.ResponseError as error:
                return self._without_set(error)
        self._last = sorted(filter(None, map(cluster_key, names)))
        return self._last

    def _without_set(self, error: redis.ResponseError) -> list[ClusterKey]:
        """Return the clusters where the set of them holds another type: as last read, or found."""
        if not is_bad_data(error):
            raise error
        blame(self._client, [keys.CLUSTERS])
        if not self._last:
            self._last = find_clusters(self._client)
        return self._last

    def versions(self) -> Versions:
        """Return the clusters that exist with their current versions, in one command."""
        with translated(self._settings, "read cluster versions"):
            found = self._names_and_versions()
        pairs = [
            (key, version_of(key, value)) for name, value in found if (key := cluster_key(name))
        ]
        return dict(sorted(pairs))

    def _names_and_versions(self) -> list[tuple[Any, Any]]:
        try:
            flat: Any = self._client.sort(keys.CLUSTERS, by="nosort", get=["#", _VERSIONS])
        except redis.ResponseError:  # forbidden for an account that may not read all keys
            known = self.clusters()
            found: Any = self._client.mget([keys.version(*key) for key in known]) if known else []
            return list(zip(map(str, known), found, strict=True))
        self._last = sorted(filter(None, map(cluster_key, flat[::2])))
        return list(zip(flat[::2], flat[1::2], strict=True))

    def view(self, key: ClusterKey, known: ClusterView | None = None) -> ClusterView:
        """Return a snapshot of one cluster; an empty one if it does not exist.

        What cannot be used is reported and left out, or is as it was in ``known``.
        """
        before: Mapping[int, Node] = known.nodes if known is not None else {}
        problems = seen()
        with translated(self._settings, f"read cluster {key}"):
            # The version comes first: nodes changed after it are seen again next time.
            version, members, last = read_all(
                self._client,
                [
                    ("get", keys.version(*key)),
                    ("smembers", keys.nodes(*key)),
                    changed_nodes.last(key),
                ],
            )
            wanted = ids(keys.nodes(*key), members) or sorted(before)
            if not wanted and isinstance(members, WrongType):
                wanted = find_nodes(self._client, key)
            hashes = read_all(self._client, [("hgetall", keys.node(*key, i)) for i in wanted])
        found = [
            decode_node(key, machine_id, data, before.get(machine_id))
            for machine_id, data in zip(wanted, hashes, strict=True)
        ]
        number = version_of(key, version)
        mark = changed_nodes.mark_of(key, last, number) if problems == seen() else ""
        nodes = (node for node in found if node is not None)
        return ClusterView.of(key, number or 0, nodes, mark)

    def current(self, known: ClusterView, version: int | None) -> ClusterView:
        """Return the cluster of ``known`` as it is at ``version`` (None: not known) or later.

        Reads the nodes that changed only, or the whole cluster where Redis does not tell which.
        """
        with translated(self._settings, f"read what changed in cluster {known.key}"):
            found = version and changed_nodes.updated(self._client, known, version)
        return found or self.view(known.key, known)

    def views(self) -> dict[ClusterKey, ClusterView]:
        """Return snapshots of all clusters."""
        return {key: self.view(key) for key in self.clusters()}

    def read(self, key: ClusterKey, machine_id: int) -> tuple[Node | None, float]:
        """Return one node (None if it does not exist) and Redis TIME in UNIX seconds."""
        what = f"read node {machine_id} of cluster {key}"
        data, time = self._read(what, ("hgetall", keys.node(*key, machine_id)), ("time",))
        return decode_node(key, machine_id, data), seconds_of(time)

    # -- changing -----------------------------------------------------------------------------

    def observe(
        self, seen: Node, event: Event, cause: Cause, suspicion: Suspicion | None = None
    ) -> Node | None:
        """Apply what was observed of a node, if it is still as it was ``seen`` then.

        With a ``suspicion``, which it concludes, only if that one is still open. Returns the node
        as it is now, None if it changed in between (the observation is dropped: several observers
        of one failure count it once) or no longer exists.
        """
        key = seen.cluster
        node, now = self.read(key, seen.machine_id)
        if node is None or node.version != seen.version:
            return None
        after = apply(node, event, now)
        if suspicion is not None and after == node:
            return node if self.end_suspicion(key, node.machine_id, suspicion) else None
        return self._commit(Change(node, after, event, cause, suspicion), now)

    def end_suspicion(self, key: ClusterKey, machine_id: int, suspicion: Suspicion) -> bool:
        """End a suspicion without a change of the node; return whether it was still open."""
        what = f"end a suspicion of node {machine_id} of cluster {key}"
        names = [keys.suspicions(*key)]
        return bool(self._run(what, "end_suspicion", names, machine_id, suspicion.since_ms))

    def command(
        self,
        key: ClusterKey,
        machine_id: int,
        event: Event,
        cause: Cause,
        check: Callable[[Node], None] | None = None,
    ) -> Node:
        """Apply an operator's or a module's command, again until no other change interferes.

        ``check`` gets the node to which the command is applied, and may raise. Raises `UnknownNode`
        if the node does not exist.
        """
        require_format(self._settings, self._client)
        for _ in range(_ATTEMPTS):
            node, now = self.read(key, machine_id)
            if node is None:
                raise UnknownNode(f"cluster {key} has no node {machine_id}")
            if check is not None:
                check(node)
            done = self._commit(Change(node, apply(node, event, now), event, cause), now)
            if done is not None:
                return done
        raise StateUnavailable(
            f"node {machine_id} of cluster {key} changed {_ATTEMPTS} times while "
            f"'{event.value}' was tried; try again"
        )

    def replace(self, before: Node, after: Node, what: str, cause: Cause) -> Node | None:
        """Commit a change that is no event of the state machine (an edit in the table)."""
        return self._commit(Change(before, after, what, cause), self.now())

    def note(self, node: Node, what: str, cause: Cause) -> None:
        """Record in the audit what was seen of a node and did not change it."""
        Change(node, node, what, cause).log()
        record: dict[Any, Any] = {"version": node.version, **audit_fields(node, node, what, cause)}
        with translated(self._settings, f"record an event of cluster {node.cluster_id}"):
            self._client.xadd(
                keys.events(node.cluster_id), record, maxlen=EVENTS_CAP, approximate=True
            )

    def _commit(self, change: Change, now: float) -> Node | None:
        after = change.after
        with translated(self._settings, f"change node {after.machine_id} of cluster {change.key}"):
            if after == change.before and not self._tries_again(change):
                return after
            reply = change.call(now, self._settings.probe_interval).run(self._client)
            if not change.take_reply(self._client, reply):
                return None
        node, _ = self.read(change.key, after.machine_id)
        return node

    def _tries_again(self, change: Change) -> bool:
        """Whether a node that is up is set up for the senders that do not reach it."""
        paths = PathStore(self._settings, self._client)
        return change.renews_epoch and paths.has_record_of(change.after)


def cluster_key(member: bytes | str) -> ClusterKey | None:
    """Return the cluster that a member of the set stands for; None, reported, for any other."""
    try:
        return ClusterKey.parse(text(member))
    except ValueError:
        bad(keys.CLUSTERS, "member", member, "cluster_id:protocol")
        return None


def find_clusters(client: redis.Redis) -> list[ClusterKey]:
    """Return the clusters that have a set of nodes, whatever `keys.CLUSTERS` says. Takes a scan."""
    found = set()
    for name in scan(client, keys.nodes(0, "*").replace("0", "*", 1)):
        with suppress(ValueError):
            found.add(ClusterKey.parse(name.split(":", 1)[1].rpartition(":")[0]))
    return sorted(found)


def find_nodes(client: redis.Redis, key: ClusterKey) -> list[int]:
    """Return the machine_ids of the nodes of a cluster that have a hash. Takes a scan."""
    prefix = keys.node(*key, 0)[:-1]
    found = (name.removeprefix(prefix) for name in scan(client, f"{prefix}*"))
    return sorted({int(machine_id) for machine_id in found if machine_id.isdecimal()})


def version_of(key: ClusterKey, value: bytes | None) -> int | None:
    """Return a cluster's version; None if there is none or, reported, something else."""
    if value is None:
        return None
    if not value.isdigit() or len(value) > _MOST_DIGITS:
        bad(keys.version(*key), "value", value, "a whole number")
        return None
    return int(value)
