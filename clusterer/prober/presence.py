"""Which probers are present: read now and then; the lowest of a cluster removes those that left."""

from __future__ import annotations

from time import monotonic

from clusterer.membership import Node
from clusterer.membership.suspicions import PRESENT_MS
from clusterer.membership.views import ClusterKey
from clusterer.prober.scene import Scene
from clusterer.store.probers import AHEAD_MS

TURN_S = 2.0
"""Between two looks; `ProberStore.sweep` removes what two of them have found old."""

SETTLE_S = 3.0
"""Time after an outage of Redis before probers are removed that have not come back."""


class Presence:
    """The probers of one prober's clusters, as of the last look. For one thread."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._present: dict[ClusterKey, dict[int, int]] = {}
        self._turn_at = 0.0
        self._sweep_from = monotonic() + SETTLE_S

    @property
    def next_at(self) -> float:
        """When `turn` has something to do (monotonic seconds)."""
        return self._turn_at

    def turn(self) -> None:
        """Read which probers are present, and remove those that are gone."""
        if monotonic() < self._turn_at:
            return
        scene = self._scene
        self._turn_at = monotonic() + TURN_S
        self._present = {key: scene.probers.present(key) for key in scene.place.clusters}
        wanted = [key for key in self._present if self._has_to_sweep(key)]
        if wanted and monotonic() >= self._sweep_from:
            scene.probers.sweep(wanted)

    def forget(self) -> None:
        """Give other probers time to be back: Redis was away, or this process."""
        self._turn_at = 0.0
        self._sweep_from = monotonic() + SETTLE_S

    def fresh(self, key: ClusterKey) -> list[int]:
        """Return the probers of a cluster that have said lately that they are present.

        A heartbeat from the future is from before Redis's clock was set back.
        """
        latest_ms = self._scene.now_ms + AHEAD_MS
        oldest_ms = self._scene.now_ms - PRESENT_MS - int(TURN_S * 1000)
        present = self._present.get(key, {}).items()
        return sorted(prober for prober, at in present if oldest_ms <= at <= latest_ms)

    def others(self, key: ClusterKey, node: Node) -> list[int]:
        """Return those of `fresh` that are not on a node's own host."""
        place = self._scene.place
        return [prober for prober in self.fresh(key) if place.elsewhere(prober, node)]

    def _has_to_sweep(self, key: ClusterKey) -> bool:
        fresh = self.fresh(key)
        return min(fresh, default=None) == self._scene.me and len(fresh) < len(self._present[key])
