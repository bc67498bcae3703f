"""The nodes of a cluster by destination, computed once per view for all senders of a worker."""

from __future__ import annotations

from typing import NamedTuple
from weakref import ref

from clusterer.ids import PROTO_BIN
from clusterer.membership import Node, State
from clusterer.membership.views import ClusterKey, ClusterView, Views


class Changes(NamedTuple):
    """What differs between two rosters of a cluster."""

    gone: dict[str, Node]
    """Nodes that only the earlier roster has."""
    new: dict[str, Node]
    """Nodes that the earlier roster does not have, or has with other values."""


_NOTHING = Changes({}, {})


class Roster:
    """The nodes of one view by `Node.destination`. Read only."""

    def __init__(self, view: ClusterView | None) -> None:
        self.view = view
        self.nodes = {node.destination: node for node in view.nodes.values()} if view else {}
        self.up: dict[str, Node] = {}
        """Nodes that no operator has taken down; no verdict keeps a sender from trying them."""
        self.down: dict[str, Node] = {}
        """Nodes that an operator has taken down: they skip every packet."""
        for destination, node in self.nodes.items():
            (self.down if node.state is State.DOWN else self.up)[destination] = node
        self.youngest = max((node.generation for node in self.down.values()), default=0)
        """Latest generation of a node that is down."""
        self._before: ref[Roster] | None = None
        self._changes = _NOTHING

    def since(self, before: Roster) -> Changes:
        """Return what has changed since an earlier roster; the last answer is remembered."""
        if before is self:
            return _NOTHING
        if self._before is None or self._before() is not before:
            old, new = before.nodes, self.nodes
            self._changes = Changes(
                {destination: node for destination, node in old.items() if destination not in new},
                {
                    destination: node
                    for destination, node in new.items()
                    if old.get(destination) is not node and old.get(destination) != node
                },
            )
            self._before = ref(before)
        return self._changes


RECORDS_PER_S = 5000
"""Nodes of all senders whose skipped packets one worker records in a second: more at a time would
hold Redis up."""


class Rosters:
    """The newest roster of each cluster, and when what the nodes skipped is to be recorded."""

    def __init__(self) -> None:
        self._known: dict[ClusterKey, Roster] = {}
        self._free_at = 0.0

    def of(self, key: ClusterKey, views: Views) -> Roster:
        """Return the roster of a cluster; it is empty where delivery does not apply."""
        view = views.get(key) if key.protocol == PROTO_BIN else None
        known = self._known.get(key)
        if known is None or known.view is not view:
            known = self._known[key] = Roster(view)
        return known

    def record_at(self, nodes: int, now: float, within_s: float) -> float:
        """Return when a sender's record of so many nodes has its turn (monotonic seconds)."""
        self._free_at = max(self._free_at, now) + nodes / RECORDS_PER_S
        return max(now + within_s, self._free_at)
