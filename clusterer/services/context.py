"""The context of the services: the settings, and the clients that the first use makes of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from time import monotonic
from typing import TYPE_CHECKING

from redis import Redis

from clusterer.runtime.once import once
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


class Intervals:
    """The times of a process's last occasional actions. For one thread."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}

    def due(self, what: str, every_s: float) -> bool:
        """Whether the action ``what`` is due, and note that it is done.

        The action is due for the first time ``every_s`` seconds after the first call.
        """
        now = monotonic()
        due = now - self._last.setdefault(what, now) >= every_s
        if due:
            self._last[what] = now
        return due


class Continuity:
    """The time since which a process repeats an action without a gap. For one thread."""

    def __init__(self) -> None:
        self._last = self._since = -inf

    def lasted_s(self, now: float, gap_s: float) -> float:
        """Note the action at ``now``; return the seconds without a gap longer than ``gap_s``.

        A clock that is set back makes a gap too.
        """
        if not 0 <= now - self._last <= gap_s:
            self._since = now
        self._last = now
        return now - self._since


class Share:
    """Limits an action to a share of the time of a process. For one thread."""

    def __init__(self) -> None:
        self._next = -inf

    def may_run(self) -> bool:
        """Whether the rest after the last run is over."""
        return monotonic() >= self._next

    @contextmanager
    def run(self, pauses: float) -> Iterator[None]:
        """Measure a run; rest for ``pauses`` times its duration afterwards."""
        began = monotonic()
        try:
            yield
        finally:
            ended = monotonic()
            self._next = max(self._next, ended + (ended - began) * pauses)

    def rest(self, rest_s: float) -> None:
        """Rest for at least ``rest_s`` seconds from now."""
        self._next = monotonic() + rest_s


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
    def probes(self) -> Continuity:
        """When this process has looked for due nodes, by the clock of Redis."""
        return Continuity()

    @once
    def sweeps(self) -> Continuity:
        """The sweeps of this process, by the clock of Redis."""
        return Continuity()

    @once
    def histories(self) -> Share:
        """The runs of the history job in this process."""
        return Share()

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
