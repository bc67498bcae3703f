"""What the parts of a prober share: stores, place, checks, the time of Redis."""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic

from clusterer.membership import Node
from clusterer.prober.checks import Checks
from clusterer.prober.place import Place
from clusterer.prober.verdicts import Verdicts
from clusterer.settings import Settings
from clusterer.store import Directory, NodeStore
from clusterer.store.paths import Observation, PathStore
from clusterer.store.probers import ProberStore
from clusterer.store.suspicions import SuspicionStore


@dataclass(slots=True)
class Scene:
    """One prober's surroundings. For one thread."""

    settings: Settings
    nodes: NodeStore
    directory: Directory
    paths: PathStore
    suspicions: SuspicionStore
    probers: ProberStore
    verdicts: Verdicts
    place: Place
    checks: Checks
    ahead_ms: float = 0.0
    """Redis's clock less the monotonic one."""

    @property
    def now_ms(self) -> int:
        """Redis's time, counted on from the last heartbeat."""
        return self.at_ms(monotonic())

    @property
    def me(self) -> int:
        """The machine_id of this prober; 0 if this host has no row."""
        return self.place.prober or 0

    @property
    def by(self) -> str:
        """This prober in the audit."""
        return f"prober {self.me}"

    def at_ms(self, at: float) -> int:
        """Return a monotonic time, in seconds, as Redis ms."""
        return int(at * 1000 + self.ahead_ms)

    def refresh(self) -> None:
        """Read the clusters that changed."""
        self.directory.refresh()
        self.place.update(self.directory.snapshot)

    def suspect(
        self, node: Node, reason: str, observation: tuple[int, Observation] | None = None
    ) -> None:
        """Open a suspicion of a node that this host does not reach."""
        self.verdicts.suspect(
            node,
            asking=self.me,
            reason=reason,
            by=self.by,
            views=self.place.views,
            observation=observation,
        )
