"""The nodes as one instance sees them: its snapshot, and the records of its own paths."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from time import monotonic
from typing import Any, NamedTuple

from clusterer.errors import StateUnavailable, UnknownCluster
from clusterer.membership import Node, State
from clusterer.membership.addresses import normalised_ip
from clusterer.runtime import forks
from clusterer.store import ClusterKey, ClusterView, Directory
from clusterer.store.directory import OwnPaths

_ip = lru_cache(maxsize=4096)(normalised_ip)


class _Up(NamedTuple):
    """The nodes of a cluster that are up, and what that was decided from."""

    view: ClusterView
    own: OwnPaths
    until: float
    """Monotonic seconds at which the next record becomes void."""
    nodes: tuple[Node, ...]


class InstanceView:
    """Answers about nodes from a copy in memory. Safe to share between threads.

    Only the first question of a process reads Redis, and a question about a cluster that must exist
    and is not in the copy.
    """

    def __init__(self, machine_id: int, directory: Directory) -> None:
        self._id = machine_id
        self.directory = directory
        self._up: dict[ClusterKey, _Up] = {}
        self._attempted = False
        forks.renew_in_child(self)

    def renew_in_child(self) -> None:
        """Let the child start its own copy."""
        self._attempted = False

    def up(self, key: ClusterKey, *, must_exist: bool = False) -> tuple[Node, ...]:
        """Return the other nodes that are up for this instance, by machine_id.

        Raises `StateUnavailable` without a copy, and with ``must_exist`` `UnknownCluster`.
        """
        view = self.directory.view(key)
        if view is None:
            if not must_exist:
                return ()
            view = self.newly_known(key)
        return self._up_in(key, view)

    def up_at_once(self, key: ClusterKey) -> tuple[Node, ...] | None:
        """Return `up` from the copy as it is; None if the copy lacks the cluster.

        Only the first call of a process reads Redis; it raises nothing.
        """
        if not self.directory.is_kept_fresh:
            self._attempt()
        view = self.directory.snapshot.get(key)
        return None if view is None else self._up_in(key, view)

    def up_in_copy(self, key: ClusterKey) -> tuple[Node, ...] | None:
        """Return `up` without a look at Redis; None if the copy lacks the cluster, or is old."""
        if not self.directory.is_kept_fresh:
            return None
        view = self.directory.snapshot.get(key)
        return None if view is None else self._up_in(key, view)

    def reachable(self, key: ClusterKey) -> list[Node]:
        """Return the other nodes whose verdict is up."""
        view = self.directory.view(key)
        return [] if view is None else view.up(without=self._id)

    def has_node_at(self, key: ClusterKey, sockaddr: Sequence[Any], machine_id: int) -> bool:
        """Return whether the address of another node has the IP of ``sockaddr``."""
        view = self.directory.view(key)
        node = view.nodes.get(machine_id) if view is not None else None
        if node is None or machine_id == self._id:
            return False
        host = sockaddr[0]
        return bool(host == node.host or _ip(host) == _ip(node.host))

    def newly_known(self, key: ClusterKey) -> ClusterView:
        """Read Redis, and return a cluster that the copy lacked; raises `UnknownCluster`."""
        self.directory.refresh()
        view = self.directory.view(key)
        if view is None:
            raise UnknownCluster(f"no node of cluster {key} is provisioned")
        return view

    def refusal(self, key: ClusterKey) -> UnknownCluster | None:
        """Return why packets to a cluster are refused; None if the cluster exists.

        Raises `StateUnavailable` while that is not known.
        """
        if self.directory.view(key) is None:
            try:
                self.newly_known(key)
            except UnknownCluster as error:
                return error
        return None

    def _attempt(self) -> None:
        """Start the copy, once: without Redis every attempt takes seconds."""
        if not self._attempted:
            self._attempted = True
            try:
                self.directory.views()
            except StateUnavailable:
                return

    def _up_in(self, key: ClusterKey, view: ClusterView) -> tuple[Node, ...]:
        own = self.directory.own_paths
        known = self._up.get(key)
        same = known is not None and known.view is view and known.own is own
        if known is not None and same and (not own.paths or monotonic() < known.until):
            return known.nodes
        nodes = tuple(
            node
            for node in view.nodes.values()
            if node.machine_id != self._id and own.as_seen(node).state is State.UP
        )
        self._up[key] = _Up(view, own, own.lasts_until(), nodes)
        return nodes
