"""Sums of the traffic of senders, made by Redis: pairs of sender and node are too many to read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import redis

from clusterer.membership.views import ClusterView
from clusterer.store import keys
from clusterer.store.scripts import script

_PAIRS_AT_ONCE = 10_000
"""Pairs after which a script call ends, some 15 ms: Redis serves no other client meanwhile."""

_SENDERS_AT_ONCE = 100
"""Most senders per script call."""

_KEEP_MS = 3_600_000
"""Time for which Redis keeps the sums of senders at rest."""

_KEYS = (
    keys.stats,
    keys.counters,
    keys.committed_count,
    keys.committed,
    keys.log,
    keys.lease,
    keys.closing,
)

LAST = 4
"""Index of the time of the last delivery, see `Counts`: of times the latest counts."""


class Counts(NamedTuple):
    """Sums of packets over pairs of sender and node."""

    sent: int
    failed: int
    skipped: int
    lost: int
    last_delivered: int
    """Redis ms of the last delivery; 0 without one."""
    pairs: int
    """Number of pairs."""


class Behind(NamedTuple):
    """A pair whose node does not have all packets of the sender."""

    sender: int
    node: int
    """Index of the node, see `Destinations`."""
    backlog: int | None
    """Packets that the node has not received; None where only the log can tell."""
    committed: int
    """Committed offset; 0 before the first delivery."""


@dataclass(frozen=True, slots=True)
class SummedTraffic:
    """Sums of some senders."""

    to: Sequence[Sequence[int]]
    """For each field of `Counts`, its values by the index of the node."""
    by: list[tuple[int, int, Counts]]
    """Sender, index of the cluster, counts."""
    behind: list[Behind]
    unusable: list[int]
    """Senders with a bad value: they are in no sum."""
    left_out: list[int]
    """Senders whose counts may change, if sums that Redis keeps were asked for."""
    done: int
    """Number of the senders that were looked at."""


class Destinations:
    """The nodes of some clusters, numbered in the order of clusters and machine_ids."""

    def __init__(self, views: Sequence[ClusterView]) -> None:
        self.nodes = [node for view in views for node in view.nodes.values()]
        clusters = [(str(v.key), [node.destination for node in v.nodes.values()]) for v in views]
        fields = [field for _, some in clusters for field in some]
        self.distinct = len({*fields}) == len(fields)
        """Whether no two nodes have the same name in the senders' hashes."""
        self._argument = json.dumps(clusters)
        largest = max((len(view.nodes) for view in views), default=1)
        self._at_once = max(1, min(_SENDERS_AT_ONCE, _PAIRS_AT_ONCE // max(1, largest)))

    def sums(
        self, client: redis.Redis, senders: Sequence[int], *, kept: bool = True
    ) -> Iterator[SummedTraffic]:
        """Yield the sums of all senders, in parts that Redis makes quickly; ``kept``: or has kept.

        Raises errors of redis-py.
        """
        for keep_ms in (_KEEP_MS, 0) if kept else (0,):
            left, left_out = senders, list[int]()
            while left:
                found = self._sums(client, left[: self._at_once], keep_ms)
                left = left[found.done :]
                left_out += found.left_out
                yield found
            senders = left_out

    def _sums(self, client: redis.Redis, senders: Sequence[int], keep_ms: int) -> SummedTraffic:
        names = [keys.sums(senders[0]), *(name(sender) for sender in senders for name in _KEYS)]
        arguments = (self._argument, _PAIRS_AT_ONCE, keep_ms, *senders)
        columns, by, behind, *others = script("sum_traffic")(client, names, *arguments)
        return SummedTraffic(
            columns,
            [(row[0], row[1] - 1, Counts(*row[2:])) for row in _rows(by, 2 + len(columns))],
            [
                Behind(sender, node - 1, None if left < 0 else left, committed)
                for sender, node, left, committed in _rows(behind, 4)
            ],
            *others,
        )


def _rows(flat: Sequence[Any], width: int) -> Iterator[Sequence[Any]]:
    return (flat[at : at + width] for at in range(0, len(flat), width))
