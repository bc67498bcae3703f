"""Nodes in Redis: read as snapshots, changed by compare-and-set, every change audited."""

from __future__ import annotations

from typing import Any

import redis

from clusterer.errors import StateUnavailable, UnknownNode
from clusterer.membership import Event, Node, apply
from clusterer.settings import Settings
from clusterer.store import keys
from clusterer.store.changes import COMMIT, EVENTS_CAP, Cause, Change, audit_fields
from clusterer.store.client import connect, translated
from clusterer.store.encoding import as_text, decode_node
from clusterer.store.format import require_format
from clusterer.store.scripts import script
from clusterer.store.views import ClusterKey, ClusterView

_VERSIONS = keys.version(0, "").replace("0:", "*")
"""Pattern of the version's key for a member of `keys.CLUSTERS`."""

_ATTEMPTS = 50
"""Compare-and-set rounds of a command before it gives up; each lost round means that somebody
else's change went through."""


class NodeStore:
    """Access to all clusters of one Redis. Safe to share between threads."""

    def __init__(self, settings: Settings, client: redis.Redis | None = None) -> None:
        self._settings = settings
        self._client = client or connect(settings)

    # -- reading ------------------------------------------------------------------------------

    def now(self) -> float:
        """Return Redis TIME, in UNIX seconds."""
        with translated(self._settings, "read the time"):
            seconds, micros = self._client.time()
        return float(seconds) + float(micros) / 1e6

    def clusters(self) -> list[ClusterKey]:
        """Return the clusters that exist, in order."""
        with translated(self._settings, "list the clusters"):
            names = self._client.smembers(keys.CLUSTERS)
        return sorted(ClusterKey.parse(as_text(name)) for name in names)

    def versions(self) -> dict[ClusterKey, int]:
        """Return the clusters that exist with their current versions, in one command."""
        with translated(self._settings, "read cluster versions"):
            found = self._names_and_versions()
        pairs = [(ClusterKey.parse(as_text(name)), int(value or 0)) for name, value in found]
        return dict(sorted(pairs))

    def _names_and_versions(self) -> list[tuple[Any, Any]]:
        try:
            flat: Any = self._client.sort(keys.CLUSTERS, by="nosort", get=["#", _VERSIONS])
        except redis.ResponseError:  # an account that may not read all keys may not do this
            names: Any = list(self._client.smembers(keys.CLUSTERS))
            wanted = [keys.version(*ClusterKey.parse(as_text(name))) for name in names]
            found: Any = self._client.mget(wanted) if wanted else []
            return list(zip(names, found, strict=True))
        return list(zip(flat[::2], flat[1::2], strict=True))

    def view(self, key: ClusterKey) -> ClusterView:
        """Return a snapshot of one cluster; an empty one if it does not exist."""
        with translated(self._settings, f"read cluster {key}"):
            pipe = self._client.pipeline(transaction=True)
            pipe.get(keys.version(*key))
            pipe.smembers(keys.nodes(*key))
            version, members = pipe.execute()
            pipe = self._client.pipeline(transaction=False)
            for member in members:
                pipe.hgetall(keys.node(*key, int(member)))
            hashes = pipe.execute()
        # Nodes changed after the version was read are newer than it says: seen again next time.
        return ClusterView.of(key, int(version or 0), (decode_node(h) for h in hashes if h))

    def views(self) -> dict[ClusterKey, ClusterView]:
        """Return snapshots of all clusters."""
        return {key: self.view(key) for key in self.clusters()}

    def read(self, key: ClusterKey, machine_id: int) -> tuple[Node | None, float]:
        """Return one node (None if it does not exist) and Redis TIME in UNIX seconds."""
        with translated(self._settings, f"read node {machine_id} of cluster {key}"):
            pipe = self._client.pipeline(transaction=True)
            pipe.hgetall(keys.node(*key, machine_id))
            pipe.time()
            data, (seconds, micros) = pipe.execute()
        return (decode_node(data) if data else None), seconds + micros / 1e6

    # -- changing -----------------------------------------------------------------------------

    def observe(self, seen: Node, event: Event, cause: Cause) -> Node | None:
        """Apply what was observed of a node, if it is still as it was ``seen`` then.

        Returns the node as it is now, None if it changed in between (the observation is dropped:
        several observers of one failure count it once) or no longer exists.
        """
        key = ClusterKey(seen.cluster_id, seen.protocol)
        node, now = self.read(key, seen.machine_id)
        if node is None or node.version != seen.version:
            return None
        return self._commit(node, apply(node, event, now), event, cause, now)

    def command(self, key: ClusterKey, machine_id: int, event: Event, cause: Cause) -> Node:
        """Apply an operator's or a module's command, again until no other change interferes.

        Raises `UnknownNode` if the node does not exist.
        """
        require_format(self._settings, self._client)
        for _ in range(_ATTEMPTS):
            node, now = self.read(key, machine_id)
            if node is None:
                raise UnknownNode(f"cluster {key} has no machine {machine_id}")
            done = self._commit(node, apply(node, event, now), event, cause, now)
            if done is not None:
                return done
        raise StateUnavailable(
            f"machine {machine_id} of cluster {key} changed {_ATTEMPTS} times while "
            f"'{event.value}' was tried; try again"
        )

    def replace(self, before: Node, after: Node, what: str, cause: Cause) -> Node | None:
        """Commit a change that is no event of the state machine (an edit in the table)."""
        now = self.now()
        return self._commit(before, after, what, cause, now)

    def note(self, node: Node, what: str, cause: Cause) -> None:
        """Record in the audit what was seen of a node and did not change it."""
        Change(node, node, what, cause).log()
        record: dict[Any, Any] = {"version": node.version, **audit_fields(node, node, what, cause)}
        with translated(self._settings, f"record an event of cluster {node.cluster_id}"):
            self._client.xadd(
                keys.events(node.cluster_id), record, maxlen=EVENTS_CAP, approximate=True
            )

    def _commit(
        self, before: Node, after: Node, event: Event | str, cause: Cause, now: float
    ) -> Node | None:
        if after == before:
            return before
        change = Change(before, after, event, cause)
        with translated(self._settings, f"change node {after.machine_id} of cluster {change.key}"):
            names, arguments = change.call(now, self._settings.probe_interval)
            version = script(COMMIT)(self._client, names, *arguments)
        if not version:
            return None
        change.log()
        node, _ = self.read(change.key, after.machine_id)
        return node
