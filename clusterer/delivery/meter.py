"""How much of which module goes to each node, and how long it takes from the log to the socket.

A worker has a meter only if metrics are on. The peers count writes, never single packets.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate

from clusterer.delivery.frames import ModuleCount
from clusterer.membership.views import ClusterKey
from clusterer.store.client import Clock
from clusterer.store.labels import ModuleLabels

BOUNDS_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 30_000, 60_000)
"""Upper bounds of the latency's buckets; one more has what took longer."""


class Stamps:
    """When the packets of a batch were appended to their log: Redis ms, in order."""

    __slots__ = ("_ends", "_ms", "_sums", "whole")

    def __init__(self, runs: Sequence[tuple[int, int]]) -> None:
        """Take (ms, number of packets) of each entry."""
        # A clock that was set back must not break the order.
        self._ms = list(accumulate((ms for ms, _ in runs), max))
        self._ends = list(accumulate(packets for _, packets in runs))
        weighted = (ms * packets for ms, (_, packets) in zip(self._ms, runs, strict=True))
        self._sums = list(accumulate(weighted))
        self.whole = (self._ms[0], self._ms[-1], self._sums[-1], self._ends[-1])
        """Of all packets: the first stamp, the last, their sum, and how many there are."""

    def between(self, first: int, end: int) -> tuple[int, int, int, int]:
        """Return the same of the packets from index ``first`` to before ``end``."""
        if first == 0 and end == self.whole[3]:
            return self.whole
        total = self.sum_before(end) - self.sum_before(first)
        return self.at(first), self.at(end - 1), total, end - first

    def sum_before(self, index: int) -> int:
        """Return the sum of the stamps of the packets before ``index``."""
        at = bisect_left(self._ends, index)
        end, total = (self._ends[at - 1], self._sums[at - 1]) if at else (0, 0)
        return total + (index - end) * self._ms[at] if index > end else total

    def count_before(self, ms: int) -> int:
        """Return how many packets were appended before ``ms``."""
        at = bisect_left(self._ms, ms)
        return self._ends[at - 1] if at else 0

    def at(self, index: int) -> int:
        """Return when the packet with that index was appended."""
        return self._ms[bisect_right(self._ends, index)]


class Sent:
    """Packets of one module that were written whole; what a broken connection lost counts again."""

    __slots__ = ("bytes", "packets")

    def __init__(self) -> None:
        self.packets = self.bytes = 0


class Flow:
    """Counts of one sender's packets to one node. Written by one thread at a time."""

    __slots__ = ("_clock", "_labels", "buckets", "sent", "sum_ms")

    def __init__(self, clock: Clock, labels: ModuleLabels) -> None:
        self._clock = clock
        self._labels = labels
        self.sent: dict[str, Sent] = {}
        """By module's label."""
        self.buckets = [0] * (len(BOUNDS_MS) + 1)
        """Packets written whole, by how long after they were appended."""
        self.sum_ms = 0
        """Sum of those times."""

    def count(self, counts: Iterable[ModuleCount]) -> None:
        """Count packets that are written whole, by module."""
        for name, packets, size in counts:
            label = self._labels.of(name)
            sent = self.sent.get(label) or self.sent.setdefault(label, Sent())
            sent.packets += packets
            sent.bytes += size

    def wrote(self, stamps: Stamps, first: int, end: int, now: float) -> None:
        """Note when the packets from index ``first`` to before ``end`` were written whole."""
        now_ms = self._clock.ms(now)
        if now_ms is not None and end > first:
            self._observe(stamps, first, end, now_ms)

    def _observe(self, stamps: Stamps, first: int, end: int, now_ms: int) -> None:
        began, ended, total, packets = stamps.between(first, end)
        self.sum_ms += max(packets * now_ms - total, 0)
        bucket = bisect_left(BOUNDS_MS, now_ms - ended)  # of the youngest
        oldest = bucket if began == ended else bisect_left(BOUNDS_MS, now_ms - began)
        while bucket < oldest:
            older = stamps.count_before(now_ms - BOUNDS_MS[bucket])
            self.buckets[bucket] += end - older
            end = older
            bucket += 1
        self.buckets[bucket] += end - first


class Meter:
    """The flows of one worker. Read by any thread."""

    def __init__(self) -> None:
        self.clock = Clock()
        self._labels = ModuleLabels()
        self.flows: dict[tuple[int, ClusterKey, int], Flow] = {}
        """By sender, cluster and machine_id of the node."""

    def flow(self, sender: int, key: ClusterKey, machine_id: int) -> Flow:
        """Return where the packets of ``sender`` to a node are counted."""
        place = sender, key, machine_id
        return self.flows.setdefault(place, Flow(self.clock, self._labels))
