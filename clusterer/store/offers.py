"""What an instance has had sent, by cluster and module: kept where metrics are served."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from clusterer.store.views import ClusterKey
from clusterer.wire import Packet


class Offers:
    """Totals since it was made. Safe to share between threads."""

    def __init__(self) -> None:
        self._totals: dict[tuple[ClusterKey, str], tuple[int, int]] = {}
        self._lock = threading.Lock()

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
        """Give cluster, module, packets and bytes."""
        for (key, module), totals in self._totals.copy().items():
            yield key, module, *totals

    def _count(self, key: ClusterKey, module: str, packets: int, size: int) -> None:
        had = self._totals.get((key, module), (0, 0))
        self._totals[key, module] = had[0] + packets, had[1] + size
