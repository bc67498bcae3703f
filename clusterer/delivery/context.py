"""What the parts of a delivery worker share: stores, settings, clusters, the time of Redis."""

from __future__ import annotations

from dataclasses import dataclass, field

from clusterer.delivery.agenda import Agenda
from clusterer.delivery.meter import Meter
from clusterer.delivery.roster import Rosters
from clusterer.membership.views import Views
from clusterer.settings import BACKLOG_REPLAY, Settings
from clusterer.store import Directory
from clusterer.store.client import Clock
from clusterer.store.paths import PathStore
from clusterer.store.sessions import SessionStore


@dataclass(frozen=True, slots=True)
class Context:
    """The stores, the settings and the copy of the clusters of one worker. For one thread."""

    settings: Settings
    store: SessionStore
    paths: PathStore
    directory: Directory
    meter: Meter | None = None
    """Counts what goes to each node; None without metrics."""
    clock: Clock = field(default_factory=Clock)
    agenda: Agenda = field(default_factory=Agenda)
    """Gets each session that may have something else to do."""
    rosters: Rosters = field(default_factory=Rosters)

    @property
    def views(self) -> Views:
        """All clusters as of the last `Directory.refresh`."""
        return self.directory.snapshot

    @property
    def replay(self) -> bool:
        """Whether packets wait in the log for a node whose gate is closed."""
        return self.settings.backlog == BACKLOG_REPLAY
