"""What the leased logs have to do, so that a turn costs what is due and not what is leased."""

from __future__ import annotations

from collections import Counter
from itertools import chain, islice
from math import inf
from typing import TYPE_CHECKING

from clusterer.membership.views import ClusterKey

if TYPE_CHECKING:
    from clusterer.delivery.drain import Drain

AT_ONCE = 32
"""Drains that get their turn before all logs are read again."""


class Agenda:
    """Drains by what is due. Times are monotonic seconds.

    A drain calls `note` when it has changed; `look` then finds out once per turn what it has to do.
    """

    def __init__(self) -> None:
        self._changed: dict[Drain, None] = {}
        self._clusters_of: dict[Drain, frozenset[ClusterKey]] = {}
        """Of every drain on the agenda."""
        self.clusters: Counter[ClusterKey] = Counter()
        """Clusters of all logs, each with the number of logs that have it."""
        self.heads: dict[str, int] = {}
        """Log that is to be read → after which sequence."""
        self.moved: set[str] = set()
        """Logs whose head has changed since the set was last cleared."""
        self.ready: dict[Drain, None] = {}
        """Drains with destinations that are behind and whose turn it is."""
        self.fenced: dict[Drain, None] = {}
        self._connect_at: dict[Drain, float] = {}
        self._commit_at: dict[Drain, float] = {}

    def add(self, drain: Drain) -> None:
        """Put a drain on the agenda."""
        self._clusters_of[drain] = frozenset()
        self.note(drain)

    def drop(self, drain: Drain) -> None:
        """Take a drain off the agenda."""
        self._set_clusters(drain, frozenset())
        del self._clusters_of[drain]
        self.heads.pop(drain.log, None)
        drains: tuple[dict[Drain, None] | dict[Drain, float], ...] = (
            self._changed,
            self.ready,
            self.fenced,
            self._connect_at,
            self._commit_at,
        )
        for each in drains:
            each.pop(drain, None)

    def note(self, drain: Drain) -> None:
        """Note that a drain has changed; one that is not on the agenda is ignored."""
        if drain in self._clusters_of:
            self._changed[drain] = None

    def look(self) -> None:
        """Find out what the drains that have changed have to do."""
        while self._changed:
            drain, _ = self._changed.popitem()
            self._set_clusters(drain, frozenset(drain.clusters))
            self._set_head(drain, drain.head if drain.readable else None)
            self._set_behind(drain)
            _set(self._commit_at, drain, drain.commit_at())

    def due(self, now: float) -> list[Drain]:
        """Return drains that are behind or are to connect: at most so many, in turn."""
        late = (drain for drain, at in self._connect_at.items() if at <= now)
        found = list(dict.fromkeys(islice(chain(self.ready, late), AT_ONCE)))
        for drain in found:
            if drain in self.ready:
                self.ready[drain] = self.ready.pop(drain)
        return found

    def to_commit(self, now: float) -> list[Drain]:
        """Return the drains with something to record."""
        return [drain for drain, at in self._commit_at.items() if at <= now]

    def connects_by(self, now: float) -> bool:
        """Whether a connection is to be made by ``now``."""
        return any(at <= now for at in self._connect_at.values())

    def next_at(self) -> float:
        """Return when something is due."""
        if self.ready:
            return 0.0
        return min(
            min(self._commit_at.values(), default=inf), min(self._connect_at.values(), default=inf)
        )

    def _set_clusters(self, drain: Drain, clusters: frozenset[ClusterKey]) -> None:
        known = self._clusters_of[drain]
        if clusters != known:
            self._clusters_of[drain] = clusters
            self.clusters.update(clusters - known)
            self.clusters.subtract(known - clusters)
            self.clusters = +self.clusters

    def _set_head(self, drain: Drain, head: int | None) -> None:
        if self.heads.get(drain.log) == head:
            return
        if head is None:
            del self.heads[drain.log]
        else:
            self.heads[drain.log] = head
            self.moved.add(drain.log)

    def _set_behind(self, drain: Drain) -> None:
        behind = drain.behind
        _flag(self.ready, drain, there=bool(behind and drain.next_behind()))
        _flag(self.fenced, drain, there=bool(behind and drain.fenced()))
        _set(self._connect_at, drain, drain.retry_at() if behind else inf)


def _flag(drains: dict[Drain, None], drain: Drain, *, there: bool) -> None:
    if there:
        drains[drain] = None
    else:
        drains.pop(drain, None)


def _set(times: dict[Drain, float], drain: Drain, at: float) -> None:
    if at < inf:
        times[drain] = at
    else:
        times.pop(drain, None)
