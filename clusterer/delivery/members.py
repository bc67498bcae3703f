"""The nodes of one sender session: follows the changes of its clusters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import NamedTuple

from clusterer.delivery.context import Context
from clusterer.delivery.gates import Gates
from clusterer.delivery.groups import Groups
from clusterer.delivery.peer import Peer
from clusterer.delivery.peer_maker import PeerMaker
from clusterer.delivery.resting_nodes import not_resting
from clusterer.delivery.roster import Roster
from clusterer.membership import Node, State
from clusterer.membership.views import ClusterKey, ClusterView, Views


class Update(NamedTuple):
    """Result of new views: nodes that are no longer in their cluster, and doubts."""

    destinations: list[str]
    """The nodes that are gone."""
    peers: list[Peer]
    """The peers of some of these nodes."""
    doubted: list[Peer]
    """Connected peers whose node's verdict has changed and is not up."""


class Members:
    """The nodes of a session's clusters as of the last `update`.

    A node whose gate is closed at the claim has no peer: see `RestingNodes`.
    """

    def __init__(self, maker: PeerMaker, groups: Groups, gates: Gates, context: Context) -> None:
        self._sender = maker.claim.sender
        self._maker = maker
        self._groups = groups
        self._gates = gates
        self._rosters = context.rosters
        self._replay = context.replay
        self.clusters = set(maker.claim.counts)
        self._rosters_of: dict[ClusterKey, Roster] = {}
        """By cluster, the roster of the last `update`."""
        self._views: dict[ClusterKey, ClusterView | None] | None = None
        """By cluster, the view of the last `update`."""

    def update(self, views: Views) -> Update | None:
        """Take over the nodes of ``views``; None if the session's clusters have not changed."""
        ours = {key: views.get(key) for key in self.clusters}
        if ours == self._views:
            return None
        self._views = ours
        self._groups.end_rest()  # their packets were skipped by the states known until now
        # Nodes that came with one reload have one generation: one search for all of them.
        start_of = cache(self._maker.start_of)
        found = Update([], [], [])
        for key in ours:
            self._take_over(key, self._rosters.of(key, views), start_of, found)
        self._groups.gather()
        return found

    def _take_over(
        self, key: ClusterKey, roster: Roster, start_of: Callable[[int], int], found: Update
    ) -> None:
        """Follow the changes of one cluster: the cost is that of the changed nodes."""
        peers, before = self._groups.peers, self._rosters_of.get(key)
        self._rosters_of[key] = roster
        left, new = roster.since(before) if before else ({}, self._at_first(key, roster))
        found.destinations.extend(d for d, node in left.items() if node.machine_id != self._sender)
        found.peers.extend(peers.pop(d) for d in left if d in peers)
        for destination, node in new.items():
            known = peers.get(destination)
            if known is not None:
                self._renew(known, node)
                if known.connected and node.state is State.PROBING:
                    found.doubted.append(known)
            elif node.machine_id == self._sender:
                continue
            elif before is None or destination not in before.nodes:
                peers[destination] = self._maker.make(node, start_of)
            elif node.state is not State.DOWN:
                self._renew(self._groups.make(before.nodes[destination]), node)
        self._groups.nodes.take_over(key, roster)

    def _at_first(self, key: ClusterKey, roster: Roster) -> Mapping[str, Node]:
        if self._replay:
            return roster.nodes
        closed = self._gates.closed(roster.up)
        self._groups.nodes.begin(key, closed)
        return not_resting(self._maker.claim, key, roster, closed)

    def _renew(self, peer: Peer, node: Node) -> None:
        peer.node = node
        self._gates.judge(peer)

    def not_in(self, views: Views) -> list[str]:
        """Return the destinations of those nodes of the session that ``views`` does not have."""
        return [
            destination
            for key, roster in self._rosters_of.items()
            for destination, node in self._rosters.of(key, views).since(roster).gone.items()
            if node.machine_id != self._sender
        ]

    def stale_destinations(self) -> list[str]:
        """Return the destinations of the claim whose node has gone or moved since."""
        stale = set(self._maker.claim.committed)
        for roster in self._rosters_of.values():
            stale -= roster.nodes.keys()
        return list(stale)
