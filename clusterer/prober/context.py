"""What the parts of a prober share: stores, viewpoint, checks, the time of Redis."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import monotonic

from clusterer.membership import Node
from clusterer.membership.suspicions import Kind
from clusterer.prober.checks import Checks
from clusterer.prober.verdicts import Verdicts, failure
from clusterer.prober.viewpoint import Viewpoint
from clusterer.settings import Settings
from clusterer.store import Cause, Directory, NodeStore
from clusterer.store.client import Clock
from clusterer.store.paths import Observation, PathStore
from clusterer.store.probers import ProberStore
from clusterer.store.suspicions import Opened, SuspicionStore


@dataclass(frozen=True, slots=True)
class Context:
    """The stores, the viewpoint and the checks of one prober. For one thread."""

    settings: Settings
    nodes: NodeStore
    directory: Directory
    paths: PathStore
    suspicions: SuspicionStore
    probers: ProberStore
    verdicts: Verdicts
    viewpoint: Viewpoint
    checks: Checks
    clock: Clock = field(default_factory=Clock)

    @property
    def now_ms(self) -> int:
        """Redis's time, counted on from the last heartbeat."""
        return self.at_ms(monotonic())

    @property
    def me(self) -> int:
        """The machine_id of this prober; 0 if this host has no row."""
        return self.viewpoint.prober or 0

    @property
    def by(self) -> str:
        """This prober in the audit."""
        return f"prober {self.me}"

    def at_ms(self, at: float) -> int:
        """Return a monotonic time, in seconds, as Redis ms."""
        return self.clock.ms(at) or 0

    def refresh(self) -> None:
        """Read the clusters that changed."""
        self.directory.refresh()
        self.viewpoint.update(self.directory.snapshot)

    def suspect(
        self, node: Node, reason: str, observation: tuple[int, Observation] | None = None
    ) -> None:
        """Open a suspicion of a node that this host does not reach.

        If no other host is present, the failure counts at once.
        """
        opened = self.suspicions.open(
            node,
            Kind.SUSPECT,
            asking=self.me,
            reason=reason,
            views=self.viewpoint.views,
            observation=observation,
        )
        if opened is Opened.ALONE:
            self.nodes.observe(node, failure(node, reason), Cause(self.by, reason))
