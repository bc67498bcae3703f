"""Nodes in Redis: read as snapshots, changed by compare-and-set, every change audited."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import redis

from clusterer.errors import StateUnavailable, UnknownNode
from clusterer.logs import about
from clusterer.membership import FAILURES, Event, Node, apply, next_look
from clusterer.settings import Settings
from clusterer.store import keys
from clusterer.store.client import connect, translated
from clusterer.store.encoding import as_text, decode_node, encode_node
from clusterer.store.scripts import script
from clusterer.store.views import ClusterKey, ClusterView

log = logging.getLogger(__name__)

EVENTS_CAP = 10_000
"""Audit events kept per cluster (approximately, Redis trims whole blocks)."""

_VERSIONS = keys.version(0, "").replace("0:", "*")
"""Pattern of the version's key for a member of `keys.CLUSTERS`."""

_ATTEMPTS = 50
"""Compare-and-set rounds of a command before it gives up; each lost round means that somebody
else's change went through."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Who or what changes a node, for the audit stream."""

    by: str
    """For example ``probe``, ``delivery of machine 1``, ``operator root@sip1``."""
    reason: str = ""


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

    def _commit(
        self, before: Node, after: Node, event: Event | str, cause: Cause, now: float
    ) -> Node | None:
        if after == before:
            return before
        key = ClusterKey(after.cluster_id, after.protocol)
        due = next_look(after, now, self._settings.probe_interval)
        fields = _flat(encode_node(after))
        audit = _flat(audit_fields(before, after, event, cause))
        with translated(self._settings, f"change node {after.machine_id} of cluster {key}"):
            version = script("commit_node")(
                self._client,
                [
                    keys.node(*key, after.machine_id),
                    keys.version(*key),
                    keys.due(*key),
                    keys.dirty(*key),
                    keys.events(key.cluster_id),
                ],
                before.version,
                after.machine_id,
                "" if due is None else int(due * 1000),
                EVENTS_CAP,
                len(fields) // 2,
                *fields,
                *audit,
            )
        if not version:
            return None
        log.log(
            logging.WARNING if event in FAILURES else logging.INFO,
            "cluster %s machine %s (%s): %s -> %s, tries %s/%s: %s%s, by %s",
            key,
            after.machine_id,
            after.url,
            before.condition.value,
            after.condition.value,
            after.no_tries,
            after.failed_attempts,
            event.value if isinstance(event, Event) else event,
            f" ({cause.reason})" if cause.reason else "",
            cause.by,
            extra=about(after, before=before.condition.value, after=after.condition.value),
        )
        node, _ = self.read(key, after.machine_id)
        return node

    # -- work that is due -----------------------------------------------------------------------

    def claim_due(self, key: ClusterKey, hide_s: float, limit: int = 1000) -> list[int]:
        """Take up to ``limit`` machine_ids that are due; nobody else gets them for ``hide_s``."""
        with translated(self._settings, f"find due nodes of cluster {key}"):
            ids = script("claim_due")(self._client, [keys.due(*key)], int(hide_s * 1000), limit)
        return [int(found) for found in ids]

    def reschedule(self, node: Node, now: float) -> None:
        """Set when a claimed node is due again, unless it was changed in between."""
        key = ClusterKey(node.cluster_id, node.protocol)
        due = next_look(node, now, self._settings.probe_interval)
        with translated(self._settings, f"reschedule node {node.machine_id} of cluster {key}"):
            script("reschedule")(
                self._client,
                [keys.node(*key, node.machine_id), keys.due(*key)],
                node.version,
                node.machine_id,
                "" if due is None else int(due * 1000),
            )


def audit_fields(
    before: Node | None, after: Node | None, event: Event | str, cause: Cause
) -> dict[str, str]:
    """Return the audit record of a change; None stands for a node that does not exist."""
    node = after or before
    if node is None:
        raise ValueError("a change needs a node before or after it")
    return {
        "protocol": node.protocol,
        "machine_id": str(node.machine_id),
        "url": node.url,
        "event": event.value if isinstance(event, Event) else event,
        "by": cause.by,
        "reason": cause.reason,
        "before": before.condition.value if before else "absent",
        "after": after.condition.value if after else "absent",
        "no_tries": str(node.no_tries),
        "failed_attempts": str(node.failed_attempts),
    }


def _flat(fields: Mapping[str, str]) -> list[str]:
    return [part for pair in fields.items() for part in pair]
