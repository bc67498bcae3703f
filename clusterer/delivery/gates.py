"""Which gates of one sender are open, by the operator's states and the sender's own records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from time import monotonic

from clusterer.delivery.peer import Peer
from clusterer.membership import Node
from clusterer.membership.paths import Path, gate
from clusterer.store.client import Clock


class Gates:
    """The records of one sender's paths, as Redis had them last, and what they say of its peers.

    ``counter`` is the sender's counter in Redis as of these records; it grows with every change.
    """

    def __init__(self, paths: Mapping[str, Path], counter: int, clock: Clock) -> None:
        self._paths = dict(paths)
        self.counter = counter
        self._clock = clock

    def __bool__(self) -> bool:
        return bool(self._paths)

    def path(self, destination: str) -> Path | None:
        """Return the record of the path to a destination, void or not."""
        return self._paths.get(destination)

    def take_over(self, paths: Mapping[str, Path], counter: int) -> set[str]:
        """Take over what Redis has now; return the destinations with a record before or after."""
        touched = self._paths.keys() | paths.keys()
        self._paths, self.counter = dict(paths), counter
        return touched

    def put(self, destination: str, path: Path | None) -> None:
        """Take over one record that this worker has written; None: there is none any more."""
        if path is None:
            self._paths.pop(destination, None)
        else:
            self._paths[destination] = path

    def closed(self, nodes: Mapping[str, Node]) -> dict[str, Node]:
        """Return those of ``nodes``, by destination, whose gates a record closes."""
        if not self._paths:
            return {}
        now_ms = self._now_ms()
        return {
            destination: nodes[destination]
            for destination, path in self._paths.items()
            if destination in nodes and not gate(nodes[destination], path, now_ms)
        }

    def judge(self, peer: Peer) -> bool:
        """Open or close the gate of one peer; True if that changed it."""
        path = self._paths.get(peer.destination)
        return peer.judge(path, self._now_ms() if path is not None else 0)

    def judge_all(
        self, peers: Mapping[str, Peer], destinations: Iterable[str] | None = None
    ) -> bool:
        """Judge the peers of ``destinations`` (None: of all records); True if a gate changed."""
        changed = False
        for destination in self._paths if destinations is None else destinations:
            if destination in peers:
                changed |= self.judge(peers[destination])
        return changed

    def _now_ms(self) -> int:
        return self._clock.ms(monotonic()) or 0
