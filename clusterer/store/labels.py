"""Names of modules as labels of metrics, and the packets that an instance sends, by label."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from clusterer.membership.views import ClusterKey
from clusterer.runtime import forks
from clusterer.wire import Packet

MAX_LABELS = 64
"""Most modules with a label of their own: a program that invents names must not fill Prometheus."""

MAX_NAME = 64
"""Bytes, or characters, of the longest name with a label of its own."""

OTHERS = "(others)"
"""Label of all other modules together."""


class ModuleLabels:
    """Gives labels to the first modules that come. Safe to share between threads."""

    def __init__(self) -> None:
        self._labels: dict[bytes | str, str] = {}

    def of(self, name: bytes | str) -> str:
        """Return the label of the module with that name; one type of names per object."""
        label = self._labels.get(name)
        return self._new(name) if label is None else label

    def _new(self, name: bytes | str) -> str:
        if len(name) > MAX_NAME or len(self._labels) >= MAX_LABELS:
            return OTHERS
        return self._labels.setdefault(name, printable(name))


def printable(name: bytes | str) -> str:
    r"""Return a module's name with ``\xff`` for a byte that is no text."""
    if isinstance(name, str):
        name = name.encode("utf-8", "surrogateescape")
    return name.decode("utf-8", "backslashreplace")


class Offers:
    """The packets that an instance sent since it began, by cluster and module.

    Safe to share between threads.
    """

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
