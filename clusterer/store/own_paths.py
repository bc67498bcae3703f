"""One sender's records of its paths in the memory of a process, as fresh as the snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic
from typing import NamedTuple

from clusterer.membership import Node
from clusterer.membership.paths import Path, as_seen
from clusterer.store.paths import PathStore


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


class PathReader:
    """Reads the records of one sender again when its counter has changed. For one thread."""

    def __init__(self, store: PathStore, sender: int) -> None:
        self._store = store
        self._sender = sender
        self._counter = 0

    def read(self, known: OwnPaths) -> OwnPaths:
        """Return the records as they are now: ``known`` itself if they have not changed.

        Raises `StateUnavailable`.
        """
        if self._store.counter(self._sender) == self._counter:
            return known
        found = self._store.records(self._sender)
        self._counter = found.counter
        return OwnPaths(found.paths, found.now_ms - int(monotonic() * 1000))
