"""The local copy of all clusters and of the own paths.

The copy is at most a second old. While Redis is unreachable, the last copy stays.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from time import monotonic
from typing import NamedTuple

from clusterer.errors import StateUnavailable
from clusterer.membership import Node
from clusterer.membership.paths import Path, as_seen
from clusterer.membership.views import ClusterKey, ClusterView, Views
from clusterer.runtime import forks
from clusterer.runtime.rounds import Rounds
from clusterer.store.nodes import NodeStore
from clusterer.store.paths import PathStore

log = logging.getLogger(__name__)

REFRESH_S = 0.7
"""Pause between two looks at the clusters' versions: well within the promised second."""


class OwnPaths(NamedTuple):
    """The records of a sender as of one look; most senders have none."""

    paths: Mapping[str, Path] = {}
    """By the destination's field."""
    ahead_ms: int = 0
    """Redis's clock minus the monotonic one."""

    def as_seen(self, node: Node) -> Node:
        """Return a node as the sender sees it now."""
        if not self.paths:
            return node
        return as_seen(node, self.paths.get(node.destination), self.now_ms)

    @property
    def now_ms(self) -> int:
        """Redis's clock."""
        return self.ahead_ms + int(monotonic() * 1000)

    def lasts_until(self) -> float:
        """Return until when (monotonic seconds) no record becomes void by itself."""
        later = [path.until_ms for path in self.paths.values() if path.until_ms > self.now_ms]
        return (min(later) - self.ahead_ms) / 1000 if later else float("inf")


class Directory:
    """Answers from its copy; a daemon thread keeps the copy current. Safe to share between threads.

    The first look-up of a process starts the thread, also after a fork.
    """

    def __init__(self, store: NodeStore, paths: PathStore | None = None, sender: int = 0) -> None:
        """``paths``: reads the path records of ``sender``, kept beside the nodes; None: none."""
        self._store = store
        self._paths = paths
        self._sender = sender
        self._counter = 0
        """The number in Redis that changes with the records, as of `own_paths`."""
        self.own_paths = OwnPaths()
        """The own sender's records as of the last `refresh`."""
        self._views: dict[ClusterKey, ClusterView] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self.is_kept_fresh = False
        """Whether a thread of this process keeps the snapshot fresh."""
        self._refreshed_at = 0.0
        self._away = False
        forks.renew_in_child(self)

    def renew_in_child(self) -> None:
        """Leave the parent's thread and its locks; the next look-up starts a thread here."""
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self.is_kept_fresh = False

    @property
    def age_s(self) -> float:
        """Seconds since the snapshot was last known to be current."""
        return monotonic() - self._refreshed_at

    @property
    def snapshot(self) -> Views:
        """All clusters as of the last `refresh`, for a caller that refreshes by itself."""
        return self._views

    def views(self) -> Views:
        """Return all clusters. Raises `StateUnavailable` if they could never be read."""
        if not self.is_kept_fresh:
            self._start()
        return self._views

    def view(self, key: ClusterKey) -> ClusterView | None:
        """Return one cluster, None if it does not exist."""
        if not self.is_kept_fresh:
            self._start()
        return self._views.get(key)

    def refresh(self) -> None:
        """Bring the snapshot up to date now; raises `StateUnavailable`."""
        with self._lock:
            versions = self._store.versions()
            known = self._views
            self._views = {
                key: self._current(known.get(key), key, version)
                for key, version in versions.items()
            }
            if self._paths is not None and self._paths.counter(self._sender) != self._counter:
                found = self._paths.records(self._sender)
                self._counter = found.counter
                self.own_paths = OwnPaths(found, found.now_ms - int(monotonic() * 1000))
            self._refreshed_at = monotonic()

    def close(self) -> None:
        """Stop keeping the snapshot fresh; the next look-up starts the thread again."""
        self._stop.set()
        self.is_kept_fresh = False

    def _current(
        self, known: ClusterView | None, key: ClusterKey, version: int | None
    ) -> ClusterView:
        """Return the view as of now; read whole whenever Redis has no version to compare with."""
        if known is not None and known.version == version:
            return known
        if known is None:
            return self._store.view(key)
        found = self._store.current(known, version)
        return known if found == known else found

    def _start(self) -> None:
        self.refresh()
        with self._lock:
            if self.is_kept_fresh:
                return
            self.is_kept_fresh = True
            self._stop = stop = threading.Event()
        threading.Thread(
            target=self._keep_fresh, args=(stop,), name="clusterer-directory", daemon=True
        ).start()

    def _keep_fresh(self, stop: threading.Event) -> None:
        rounds = Rounds("directory")
        while not stop.wait(REFRESH_S):
            with rounds.guard():
                self._attempt()

    def _attempt(self) -> None:
        """Refresh, and log when Redis goes away and when it is back."""
        try:
            self.refresh()
        except StateUnavailable as error:
            if not self._away:
                log.warning("directory: using the last copy of the nodes: %s", error)
            self._away = True
            return
        if self._away:
            log.warning("directory: copy of the nodes is current again")
        self._away = False
