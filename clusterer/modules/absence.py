"""Finds the nodes of a cluster that were not up for some time."""

from __future__ import annotations

import math

from clusterer.errors import InvalidArgument, StateUnavailable
from clusterer.ids import PROTO_BIN
from clusterer.modules.base import Cluster

STALE_S = 5.0
"""Age, in seconds, from which the local copy of the nodes' states is ignored."""


class Absences:
    """Times how long each node that sent a message is not up. Not safe to share between threads.

    A new message of a node resets its time, whatever the node's state. While Redis is unavailable
    no time is counted; afterwards each time begins at 0.
    """

    def __init__(self, clusterer: Cluster, cluster_id: int, limit_s: float) -> None:
        """``limit_s``: seconds after which a node counts as gone, 0: never.

        Raises `InvalidArgument` for a negative or infinite time.
        """
        if not 0 <= limit_s < math.inf:
            raise InvalidArgument(f"end_calls_after must be 0 or more seconds, not {limit_s!r}")
        self._clusterer = clusterer
        self._cluster_id = cluster_id
        self._limit_s = limit_s
        self._since: dict[int, float | None] = {}
        """By machine_id; None while the node is up."""

    def note_seen(self, machine_id: int) -> None:
        """Note that a node sent a message."""
        if self._limit_s:
            self._since[machine_id] = None

    def gone(self, now: float) -> list[int]:
        """Return the nodes that are gone at ``now`` (monotonic), each once until `note_seen`."""
        up = self._up() if self._since else None
        gone = []
        for machine_id, since in list(self._since.items()):
            if up is None or machine_id in up:
                self._since[machine_id] = None
            elif since is None:
                self._since[machine_id] = now
            elif now - since >= self._limit_s:
                del self._since[machine_id]
                gone.append(machine_id)
        return gone

    def _up(self) -> set[int] | None:
        """Return the nodes that any host reaches, None if Redis does not confirm them."""
        try:
            # A broken link to this host ends no calls: other hosts reach the node.
            nodes = self._clusterer.reachable_nodes(self._cluster_id, PROTO_BIN)
        except StateUnavailable:
            return None
        if self._clusterer.snapshot_age_s() > STALE_S:
            return None
        return {node.machine_id for node in nodes}
