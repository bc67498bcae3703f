"""Dirty marks: nodes whose state the sync job has not written to the table yet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from clusterer.membership import Node
from clusterer.membership.columns import StateColumns
from clusterer.membership.views import ClusterKey
from clusterer.store import keys
from clusterer.store.badvalues import bad, batches, ids, pairs
from clusterer.store.client import Store, translated
from clusterer.store.encoding import decode_node
from clusterer.store.scripts import Call, run_each

_PIPELINE = 1000
"""Commands sent at once."""


@dataclass(frozen=True, slots=True)
class DirtyNode:
    """A node to be written to the table."""

    node: Node
    mark: str
    """Version at which the node was marked; `end` deletes the mark only at this version."""
    synced: tuple[StateColumns, ...]
    """States that our jobs may have written to the table, the oldest first; empty if unknown."""


class DirtyNodes(Store):
    """The dirty marks of all clusters. Safe to share between threads and processes."""

    def find(self, clusters: Sequence[ClusterKey]) -> list[tuple[ClusterKey, int]]:
        """Return the cluster and machine_id of every marked node."""
        commands = [("zrange", keys.dirty(*key), 0, -1) for key in clusters]
        found = self._read("find nodes that are not in the table yet", *commands)
        return [
            (key, machine_id)
            for key, members in zip(clusters, found, strict=True)
            for machine_id in ids(keys.dirty(*key), members)
        ]

    def begin(self, wanted: Sequence[tuple[ClusterKey, int]]) -> list[DirtyNode]:
        """Return those of ``wanted`` that are still marked, and note the states to write."""
        replies = self._run_all("sync_begin", [(key, machine_id, ()) for key, machine_id in wanted])
        found = (_decoded(*place, reply) for place, reply in zip(wanted, replies, strict=True))
        return [item for item in found if item is not None]

    def end(self, written: Iterable[tuple[DirtyNode, StateColumns | None]]) -> int:
        """Note the states in the table; None (not known) only deletes the mark.

        Returns the number of nodes that changed in between and therefore stay marked.
        """
        calls = [
            (
                item.node.cluster,
                item.node.machine_id,
                (item.mark, "" if columns is None else str(columns)),
            )
            for item, columns in written
        ]
        return self._run_all("sync_end", calls).count(0)

    def synced(self, node: Node) -> tuple[StateColumns, ...]:
        """Return the states of ``node`` that our own jobs may have written, as noted now."""
        key = node.cluster
        command = "hget", keys.synced(*key), str(node.machine_id)
        (noted,) = self._read("read what was written to the table", command)
        return known_columns(key, node.machine_id, noted)

    def _run_all(
        self, name: str, calls: Sequence[tuple[ClusterKey, int, tuple[str, ...]]]
    ) -> list[Any]:
        replies: list[Any] = []
        with translated(self._settings, "note what is written to the table"):
            for some in batches(calls, _PIPELINE):
                made = [Call(name, _touched(key, i), (i, *arguments)) for key, i, arguments in some]
                replies += run_each(self._client, made)
        return replies


def _touched(key: ClusterKey, machine_id: int) -> list[str]:
    return [keys.node(*key, machine_id), keys.dirty(*key), keys.synced(*key)]


def _decoded(key: ClusterKey, machine_id: int, reply: Sequence[Any] | None) -> DirtyNode | None:
    if not reply:
        return None
    mark, synced, flat = reply
    node = decode_node(key, machine_id, pairs(flat))
    if node is None or not mark:  # decode_node has reported the fault
        return None
    return DirtyNode(node, mark.decode(), known_columns(key, machine_id, synced))


def known_columns(key: ClusterKey, machine_id: int, noted: object) -> tuple[StateColumns, ...]:
    """Return the states that our own jobs may have written; report bad values."""
    found: list[StateColumns] = []
    for item in noted.split(b",") if isinstance(noted, bytes) else ():
        try:
            found += StateColumns.parse_all(item.decode())
        except ValueError:
            bad(keys.synced(*key), f"field {machine_id}", item, "'state no_tries last_attempt'")
    return tuple(found)
