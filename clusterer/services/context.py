"""The context of the services: the settings, and the clients that the first use makes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redis import Redis

from clusterer.runtime.once import once
from clusterer.runtime.pace import DutyCycle, Intervals, SteadyRun
from clusterer.settings import Settings
from clusterer.store import Directory, NodeStore, connect
from clusterer.store.backlog import BacklogStore
from clusterer.store.due import DueNodes
from clusterer.store.paths import PathStore
from clusterer.store.probers import ProberStore
from clusterer.store.suspicions import SuspicionStore
from clusterer.store.watches import WatchPlan

if TYPE_CHECKING:
    from clusterer.provisioning.database import Database


class Context:
    """Settings and the clients made of them. The first use of a client connects it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @once
    def redis(self) -> Redis:
        """A client whose calls fail within 2 s; errors are redis-py's."""
        return connect(self.settings)

    @once
    def nodes(self) -> NodeStore:
        """The nodes of all clusters."""
        return NodeStore(self.settings, self.redis)

    @once
    def directory(self) -> Directory:
        """The nodes of all clusters as of the last `Directory.refresh`."""
        return Directory(self.nodes)

    @once
    def paths(self) -> PathStore:
        """Which senders do not reach which nodes."""
        return PathStore(self.settings, self.redis)

    @once
    def suspicions(self) -> SuspicionStore:
        """The questions whether any host reaches a node."""
        return SuspicionStore(self.settings, self.redis)

    @once
    def probers(self) -> ProberStore:
        """The hosts that can say whether they reach a node."""
        return ProberStore(self.settings, self.redis)

    @once
    def due(self) -> DueNodes:
        """The nodes that the probe job must look at."""
        return DueNodes(self.settings, self.redis)

    @once
    def backlog(self) -> BacklogStore:
        """The delivery queues."""
        return BacklogStore(self.settings, self.redis)

    @once
    def intervals(self) -> Intervals:
        """The sweep's actions that are due less often than every second."""
        return Intervals()

    @once
    def watch_plan(self) -> WatchPlan:
        """When the module timeout job looks at each registration next."""
        return WatchPlan()

    @once
    def probes(self) -> SteadyRun:
        """When this process has looked for due nodes, by the clock of Redis."""
        return SteadyRun()

    @once
    def sweeps(self) -> SteadyRun:
        """The sweeps of this process, by the clock of Redis."""
        return SteadyRun()

    @once
    def histories(self) -> DutyCycle:
        """The runs of the history job in this process."""
        return DutyCycle()

    @once
    def jobs_client(self) -> Redis:
        """A client for RQ alone: RQ changes the timeouts of its client."""
        from clusterer import jobs  # noqa: PLC0415  RQ costs 0.2 s to import; few commands need it

        return jobs.connect(self.settings)

    @once
    def database(self) -> Database:
        """The provisioning database; `SettingsError` if its settings cannot be used."""
        from clusterer.provisioning.database import Database  # noqa: PLC0415 - 0.2 s that few commands need

        return Database(self.settings)

    def close(self) -> None:
        """Close the open connections."""
        for name in ("redis", "jobs_client"):
            if name in self.__dict__:
                getattr(self, name).close()
