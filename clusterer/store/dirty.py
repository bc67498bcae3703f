"""Nodes whose state is not yet in the table, from taking one up to noting that it is written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from clusterer.membership import Node
from clusterer.membership.columns import StateColumns
from clusterer.settings import Settings
from clusterer.store import keys
from clusterer.store.client import translated
from clusterer.store.encoding import decode_node
from clusterer.store.scripts import script
from clusterer.store.views import ClusterKey

_PIPELINE = 1000
"""Commands sent at once."""


@dataclass(frozen=True, slots=True)
class DirtyNode:
    """A node to be written to the table."""

    node: Node
    mark: str
    """Version at which it was marked; the mark is removed only if it still is this one."""
    synced: tuple[StateColumns, ...]
    """What the table may hold by our own hand; the oldest first, empty if not known."""


class DirtyNodes:
    """The dirty marks of all clusters. Safe to share between threads and processes."""

    def __init__(self, settings: Settings, client: redis.Redis) -> None:
        self._settings = settings
        self._client = client

    def find(self, clusters: Sequence[ClusterKey]) -> list[tuple[ClusterKey, int]]:
        """Return the cluster and machine_id of every marked node."""
        with translated(self._settings, "find nodes that are not in the table yet"):
            pipe = self._client.pipeline(transaction=False)
            for key in clusters:
                pipe.zrange(keys.dirty(*key), 0, -1)
            found = pipe.execute()
        return [
            (key, int(machine_id))
            for key, members in zip(clusters, found, strict=True)
            for machine_id in members
        ]

    def begin(self, wanted: Sequence[tuple[ClusterKey, int]]) -> list[DirtyNode]:
        """Take up those of ``wanted`` that are still marked, noting what will be written."""
        calls = [(key, machine_id, ()) for key, machine_id in wanted]
        return [_decoded(reply) for reply in self._run("sync_begin", calls) if reply]

    def end(self, written: Iterable[tuple[DirtyNode, StateColumns | None]]) -> int:
        """Note what the table holds now; None (not known) only drops the mark.

        Returns how many nodes were changed in between and so stay marked.
        """
        calls = [
            (
                ClusterKey(item.node.cluster_id, item.node.protocol),
                item.node.machine_id,
                (item.mark, "" if columns is None else str(columns)),
            )
            for item, columns in written
        ]
        return self._run("sync_end", calls).count(0)

    def synced(self, node: Node) -> tuple[StateColumns, ...]:
        """Return what the table may hold of ``node`` by our own hand, as noted now."""
        with translated(self._settings, "read what was written to the table"):
            (noted,) = self._client.hmget(
                keys.synced(node.cluster_id, node.protocol), [str(node.machine_id)]
            )
        return _columns(noted)

    def _run(
        self, name: str, calls: Sequence[tuple[ClusterKey, int, tuple[str, ...]]]
    ) -> list[Any]:
        lua = script(name)
        replies: list[Any] = []
        with translated(self._settings, "note what is written to the table"):
            for start in range(0, len(calls), _PIPELINE):
                pipe = self._client.pipeline(transaction=False)
                pipe.script_load(lua.text)
                for key, machine_id, arguments in calls[start : start + _PIPELINE]:
                    touched = [keys.node(*key, machine_id), keys.dirty(*key), keys.synced(*key)]
                    pipe.evalsha(lua.sha, len(touched), *touched, machine_id, *arguments)
                replies += pipe.execute()[1:]
        return replies


def _decoded(reply: Sequence[Any]) -> DirtyNode:
    mark, synced, flat = reply
    node = decode_node(dict(zip(flat[::2], flat[1::2], strict=True)))
    return DirtyNode(node, mark.decode(), _columns(synced))


def _columns(noted: object) -> tuple[StateColumns, ...]:
    return StateColumns.parse_all(noted.decode() if isinstance(noted, bytes) else "")
