"""The agenda of a worker: which sessions have something due. A turn costs only what is due."""

from __future__ import annotations

from collections import Counter
from itertools import chain, islice
from math import inf
from typing import TYPE_CHECKING

from clusterer.membership.views import ClusterKey

if TYPE_CHECKING:
    from clusterer.delivery.session import SenderSession

AT_ONCE = 32
"""Most sessions that get a turn between two reads of all logs."""


class Agenda:
    """Sessions by what is due. Times are monotonic seconds.

    A session that has changed calls `note`; once per turn, `look` finds out what it has to do.
    """

    def __init__(self) -> None:
        self._changed: dict[SenderSession, None] = {}
        self._clusters_of: dict[SenderSession, frozenset[ClusterKey]] = {}
        """Of every session on the agenda."""
        self.clusters: Counter[ClusterKey] = Counter()
        """Clusters of all logs, each with the number of logs that have it."""
        self.heads: dict[str, int] = {}
        """Log that is to be read → after which sequence."""
        self.moved: set[str] = set()
        """Logs whose head has changed since the set was last cleared."""
        self.ready: dict[SenderSession, None] = {}
        """Sessions with a ready peer behind the front, in the order of their turns."""
        self.guarded: dict[SenderSession, None] = {}
        self._connect_at: dict[SenderSession, float] = {}
        self._commit_at: dict[SenderSession, float] = {}

    def add(self, session: SenderSession) -> None:
        """Put a session on the agenda."""
        self._clusters_of[session] = frozenset()
        self.note(session)

    def drop(self, session: SenderSession) -> None:
        """Take a session off the agenda."""
        self._set_clusters(session, frozenset())
        del self._clusters_of[session]
        self.heads.pop(session.log, None)
        sessions: tuple[dict[SenderSession, None] | dict[SenderSession, float], ...] = (
            self._changed,
            self.ready,
            self.guarded,
            self._connect_at,
            self._commit_at,
        )
        for each in sessions:
            each.pop(session, None)

    def note(self, session: SenderSession) -> None:
        """Note that a session has changed; the agenda ignores a session that is not on it."""
        if session in self._clusters_of:
            self._changed[session] = None

    def look(self) -> None:
        """Find out what is due in the sessions that have changed."""
        while self._changed:
            session, _ = self._changed.popitem()
            self._set_clusters(session, frozenset(session.members.clusters))
            self._set_head(session, session.groups.head if session.groups.readable else None)
            self._set_behind(session)
            _set(self._commit_at, session, session.recorder.due_at())

    def due(self, now: float) -> list[SenderSession]:
        """Return sessions with peers behind or a connection to make: at most `AT_ONCE`, in turn."""
        late = (session for session, at in self._connect_at.items() if at <= now)
        found = list(dict.fromkeys(islice(chain(self.ready, late), AT_ONCE)))
        for session in found:
            if session in self.ready:
                self.ready[session] = self.ready.pop(session)
        return found

    def to_commit(self, now: float) -> list[SenderSession]:
        """Return the sessions with something to record."""
        return [session for session, at in self._commit_at.items() if at <= now]

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

    def _set_clusters(self, session: SenderSession, clusters: frozenset[ClusterKey]) -> None:
        known = self._clusters_of[session]
        if clusters != known:
            self._clusters_of[session] = clusters
            self.clusters.update(clusters - known)
            self.clusters.subtract(known - clusters)
            self.clusters = +self.clusters

    def _set_head(self, session: SenderSession, head: int | None) -> None:
        if self.heads.get(session.log) == head:
            return
        if head is None:
            del self.heads[session.log]
        else:
            self.heads[session.log] = head
            self.moved.add(session.log)

    def _set_behind(self, session: SenderSession) -> None:
        behind = session.groups.behind
        _flag(self.ready, session, there=bool(behind and session.groups.next_behind()))
        _flag(self.guarded, session, there=bool(behind and session.guarded()))
        _set(self._connect_at, session, session.retry_at() if behind else inf)


def _flag(sessions: dict[SenderSession, None], session: SenderSession, *, there: bool) -> None:
    if there:
        sessions[session] = None
    else:
        sessions.pop(session, None)


def _set(times: dict[SenderSession, float], session: SenderSession, at: float) -> None:
    if at < inf:
        times[session] = at
    else:
        times.pop(session, None)
