"""Immutable snapshots of clusters, as everything that decides about nodes reads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from clusterer.ids import PROTO_BIN
from clusterer.membership.node import ClusterKey, Node, State

__all__ = ["ClusterKey", "ClusterView", "Views", "all_nodes", "node_in", "node_of", "rows_of"]


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
        """Return the nodes that are up, except the machine_id ``without``."""
        return [
            node
            for machine_id, node in self.nodes.items()
            if node.state is State.UP and machine_id != without
        ]


Views = Mapping[ClusterKey, ClusterView]
"""All clusters at one moment."""


def all_nodes(views: Iterable[ClusterView]) -> list[Node]:
    """Return the nodes of all ``views``."""
    return [node for view in views for node in view.nodes.values()]


def node_in(key: ClusterKey, machine_id: int, views: Views) -> Node | None:
    """Return a node of a cluster; None if there is no such node or cluster."""
    view = views.get(key)
    return view.nodes.get(machine_id) if view is not None else None


def node_of(destination: str, views: Views) -> Node | None:
    """Return the node with that `Node.destination`; None if it is gone, moved, or never was."""
    cluster_id, _, rest = destination.partition("/")
    machine_id = rest.partition("/")[0]
    if not (cluster_id.isdecimal() and machine_id.isdecimal()):
        return None
    node = node_in(ClusterKey(int(cluster_id), PROTO_BIN), int(machine_id), views)
    return node if node is not None and node.destination == destination else None


def rows_of(machine_id: int, views: Views) -> list[Node]:
    """Return the BIN rows of a machine_id, in the order of ``views``."""
    return [
        view.nodes[machine_id]
        for key, view in views.items()
        if key.protocol == PROTO_BIN and machine_id in view.nodes
    ]
