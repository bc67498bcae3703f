"""Counts the packets that an instance sends, by cluster and module, for its metrics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from clusterer.membership.views import ClusterKey
from clusterer.runtime import forks
from clusterer.store.labels import ModuleLabels
from clusterer.wire import Packet


class Offers:
    """Totals since the start of the process. Safe to share between threads."""

    def __init__(self) -> None:
        self._labels = ModuleLabels()
        self._totals: dict[tuple[ClusterKey, str], tuple[int, int]] = {}
        self._lock = forks.lock()

    def add(self, key: ClusterKey, packets: Sequence[Packet], frames: Sequence[bytes]) -> None:
        """Count packets of a cluster, and the bytes of their frames."""
        modules = {packet.module for packet in packets}
        with self._lock:
            if len(modules) == 1:
                self._count(key, modules.pop(), len(frames), sum(map(len, frames)))
                return
            for packet, frame in zip(packets, frames, strict=True):
                self._count(key, packet.module, 1, len(frame))

    def __iter__(self) -> Iterator[tuple[ClusterKey, str, int, int]]:
        """Yield cluster, label of the module, packets and bytes."""
        for (key, label), totals in self._totals.copy().items():
            yield key, label, *totals

    def _count(self, key: ClusterKey, module: str, packets: int, size: int) -> None:
        place = key, self._labels.of(module)
        had = self._totals.get(place, (0, 0))
        self._totals[place] = had[0] + packets, had[1] + size
