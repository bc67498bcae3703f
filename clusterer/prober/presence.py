"""Which probers are present: read with every second heartbeat.

The lowest of a cluster removes those that left.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic

from clusterer.membership import Node
from clusterer.membership.suspicions import PRESENT_MS
from clusterer.membership.views import ClusterKey
from clusterer.prober.context import Context
from clusterer.store.probers import AHEAD_MS

TURN_S = 1.5
"""Least time between two looks, which are two heartbeats apart: `ProberStore.sweep` removes what
two of them have found old."""

LOOK_MS = 2000
"""Age of the last look, at most."""

SETTLE_S = 3.0
"""Time after an outage of Redis before probers are removed that have not come back."""


class Presence:
    """The probers of one prober's clusters, as of the last look. For one thread."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._present: Mapping[ClusterKey, Mapping[int, int]] = {}
        self._look_at = 0.0
        self._sweep_from = monotonic() + SETTLE_S

    @property
    def is_due(self) -> bool:
        """Whether the next heartbeat has to look which probers are present."""
        return monotonic() >= self._look_at

    def notice(self, present: Mapping[ClusterKey, Mapping[int, int]]) -> None:
        """Take over what a heartbeat has read, and remove probers that are gone."""
        self._look_at = monotonic() + TURN_S
        self._present = present
        wanted = [key for key in present if self._has_to_sweep(key)]
        if wanted and monotonic() >= self._sweep_from:
            self._context.probers.sweep(wanted)

    def forget(self) -> None:
        """Give other probers time to be back: Redis was away, or this process."""
        self._look_at = 0.0
        self._sweep_from = monotonic() + SETTLE_S

    def fresh(self, key: ClusterKey) -> list[int]:
        """Return the probers of a cluster that have said lately that they are present.

        A heartbeat from the future is from before Redis's clock was set back.
        """
        latest_ms = self._context.now_ms + AHEAD_MS
        oldest_ms = self._context.now_ms - PRESENT_MS - LOOK_MS
        present = self._present.get(key, {}).items()
        return sorted(prober for prober, at in present if oldest_ms <= at <= latest_ms)

    def others(self, key: ClusterKey, node: Node) -> list[int]:
        """Return those of `fresh` that are not on a node's own host."""
        viewpoint = self._context.viewpoint
        return [prober for prober in self.fresh(key) if viewpoint.elsewhere(prober, node)]

    def _has_to_sweep(self, key: ClusterKey) -> bool:
        fresh = self.fresh(key)
        return min(fresh, default=None) == self._context.me and len(fresh) < len(self._present[key])
