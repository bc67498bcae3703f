"""Immutable snapshots of clusters, as everything that decides about nodes reads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from clusterer.ids import MAX_ID, require_protocol
from clusterer.membership import Node, State


class ClusterKey(NamedTuple):
    """What identifies a cluster: one id may stand for several, one per protocol."""

    cluster_id: int
    protocol: str

    def __str__(self) -> str:
        return f"{self.cluster_id}:{self.protocol}"

    @classmethod
    def parse(cls, text: str) -> ClusterKey:
        """Return the key that ``str(key)`` gave; anything else raises ValueError."""
        cluster_id, _, protocol = text.partition(":")
        key = cls(int(cluster_id), protocol)
        if str(key) != text or not 1 <= key.cluster_id <= MAX_ID:
            raise ValueError(f"{text!r} is not cluster_id:protocol")
        require_protocol(protocol)  # raises a ValueError too
        return key


@dataclass(frozen=True, slots=True)
class ClusterView:
    """All nodes of one cluster as they were at ``version``."""

    key: ClusterKey
    version: int
    nodes: Mapping[int, Node] = field(default_factory=lambda: MappingProxyType({}))
    mark: str = field(default="", compare=False)
    """Id of the event of its version; empty if it is not known, or not all was usable."""

    @classmethod
    def of(
        cls, key: ClusterKey, version: int, nodes: Iterable[Node], mark: str = ""
    ) -> ClusterView:
        """Build a view; nodes are kept in order of their machine_id."""
        by_id = {node.machine_id: node for node in sorted(nodes, key=lambda n: n.machine_id)}
        return cls(key, version, MappingProxyType(by_id), mark)

    def up(self, *, without: int = 0) -> list[Node]:
        """Return the nodes that are up, except the machine ``without``."""
        return [
            node
            for machine_id, node in self.nodes.items()
            if node.state is State.UP and machine_id != without
        ]
