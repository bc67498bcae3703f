"""Which nodes of a cluster were not up for some time, as an observer needs to know it."""

from __future__ import annotations

import math
from typing import Protocol

from clusterer.errors import InvalidArgument, StateUnavailable
from clusterer.ids import PROTO_BIN
from clusterer.modules.observing import Registers

STALE_S = 5.0
"""Age, in seconds, from which what is known of the nodes' states proves nothing."""


class Watched(Registers, Protocol):
    """The part of `clusterer.Clusterer` that knows the nodes' states and how old they are."""

    def snapshot_age_s(self) -> float: ...


class Absences:
    """Notes since when the nodes that sent something are not up. Not safe to share between threads.

    A node that sends again counts as present from then on, whatever its state is. While Redis is
    away, nothing is known: the time begins again when it is back.
    """

    def __init__(self, clusterer: Watched, cluster_id: int, limit_s: float) -> None:
        """``limit_s``: seconds after which a node is gone, 0: never.

        Raises `InvalidArgument` for a time below 0 or none.
        """
        if not 0 <= limit_s < math.inf:
            raise InvalidArgument(f"end_calls_after must be 0 or more seconds, not {limit_s!r}")
        self._clusterer = clusterer
        self._cluster_id = cluster_id
        self._limit_s = limit_s
        self._since: dict[int, float | None] = {}
        """By machine_id; None while the node is up."""

    def heard(self, machine_id: int) -> None:
        """Note that a node sent something."""
        if self._limit_s:
            self._since[machine_id] = None

    def gone(self, now: float) -> list[int]:
        """Return the nodes that are gone at ``now`` (never goes back), each once until heard."""
        up = self._up() if self._since else None
        for machine_id, since in list(self._since.items()):
            if up is None or machine_id in up:
                self._since[machine_id] = None
            elif since is None:
                self._since[machine_id] = now
        over = [m for m, since in self._since.items() if _is_over(since, self._limit_s, now)]
        for machine_id in over:
            del self._since[machine_id]
        return over

    def _up(self) -> set[int] | None:
        """Return the nodes that are up, None if that is not known."""
        try:
            nodes = self._clusterer.get_nodes(self._cluster_id, PROTO_BIN)
        except StateUnavailable:
            return None
        if self._clusterer.snapshot_age_s() > STALE_S:
            return None
        return {node.machine_id for node in nodes}


def _is_over(since: float | None, limit_s: float, now: float) -> bool:
    return since is not None and now - since >= limit_s
