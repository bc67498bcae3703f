"""The viewpoint of a prober: the own nodes of its host, and the addresses to connect from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import monotonic

from clusterer.ids import PROTO_BIN
from clusterer.membership import Node
from clusterer.membership.views import ClusterKey, Views, node_in
from clusterer.store.probers import LOOK_S


class Viewpoint:
    """One host as of the last `update`: its own nodes and addresses. For one thread."""

    def __init__(self, is_local: Callable[[str], bool]) -> None:
        """``is_local``: whether an IP address is one of this host."""
        self._is_local = is_local
        self.views: Views = {}
        """The clusters as of the last `update`."""
        self._looked_at = float("-inf")
        self._hosts: dict[str, bool] = {}
        self._addresses: Mapping[int, frozenset[str]] = {}
        """By machine_id, the addresses of all its rows."""
        self.machine_ids: frozenset[int] = frozenset()
        """The machine_ids whose rows have an address of this host."""
        self.sources: Mapping[ClusterKey, str] = {}
        """By cluster, the address of the own node with the lowest machine_id there."""
        self._of_family: Mapping[tuple[ClusterKey, bool], str] = {}
        """The same by cluster and family: True is IPv6."""

    @property
    def prober(self) -> int | None:
        """The machine_id under which this host's prober is known; None without an own node."""
        return min(self.machine_ids, default=None)

    @property
    def clusters(self) -> list[ClusterKey]:
        """The clusters in which this host has a row."""
        return sorted(self.sources)

    def update(self, views: Views) -> None:
        """Take over the clusters as they are now, and ask the kernel again now and then."""
        if monotonic() - self._looked_at >= LOOK_S:
            self._looked_at = monotonic()
            self._hosts = {}
        elif views == self.views:
            return
        self.views = views
        machine_ids: set[int] = set()
        addresses: dict[int, set[str]] = {}
        sources: dict[ClusterKey, str] = {}
        of_family: dict[tuple[ClusterKey, bool], str] = {}
        for key, view in views.items():
            if key.protocol != PROTO_BIN:
                continue
            for machine_id, node in view.nodes.items():  # in order of their machine_id
                addresses.setdefault(machine_id, set()).add(node.host)
                if self.is_here(node):
                    machine_ids.add(machine_id)
                    sources.setdefault(key, node.host)
                    of_family.setdefault((key, ":" in node.host), node.host)
        self.machine_ids, self.sources = frozenset(machine_ids), sources
        self._of_family = of_family
        self._addresses = {machine_id: frozenset(found) for machine_id, found in addresses.items()}

    def is_here(self, node: Node) -> bool:
        """Whether a node's address is one of this host."""
        found = self._hosts.get(node.host)
        if found is None:
            found = self._hosts[node.host] = self._is_local(node.host)
        return found

    def source(self, node: Node) -> str | None:
        """Return the own address from which a node is checked: one of the node's family, if any."""
        key = node.cluster
        return self._of_family.get((key, ":" in node.host), self.sources.get(key))

    def has(self, source: str) -> bool:
        """Whether an address is one of this host at this moment."""
        return self._is_local(source)

    def has_lost(self, source: str | None) -> bool:
        """Whether a check was made from an address that has left this host: it is no evidence."""
        return source is not None and not self.has(source)

    def node(self, key: ClusterKey, machine_id: int) -> Node | None:
        """Return a node as of the last `update`."""
        return node_in(key, machine_id, self.views)

    def elsewhere(self, prober: int, node: Node) -> bool:
        """Whether a prober is on another host than a node, as far as their rows tell.

        The kernel is not asked: the probers of all hosts must find the same.
        """
        nowhere: frozenset[str] = frozenset()
        own = self._addresses.get(node.machine_id, nowhere)
        return own.isdisjoint(self._addresses.get(prober, nowhere))
