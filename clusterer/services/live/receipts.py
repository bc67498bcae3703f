"""When the instances last saw the nodes: of each instance, of all together, or of one node."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import redis

from clusterer.store.badvalues import read_all
from clusterer.store.receptions import latest, scores
from clusterer.store.watches import Watch


@dataclass(frozen=True, slots=True)
class Receipt:
    """The times at which one instance last saw the nodes, for one of its registered modules."""

    watch: Watch
    last_seen_ms: Mapping[int, int]
    """machine_id → Redis ms; at first when the instance began to listen."""
    muted_ms: Mapping[int, int]
    """machine_id → Redis ms until which the instance drops the node's packets."""


def summed(client: redis.Redis, listening: Sequence[Watch]) -> tuple[Receipt, ...]:
    """Return one receipt for each module and cluster, with the latest times of all instances.

    Each instance that mutes nodes has a further receipt, for these nodes only.
    """
    found, muting = [], set()
    for watch, last_seen_ms, muted_ms in latest(client, listening):
        found.append(Receipt(watch, last_seen_ms, {}))
        if muted_ms:
            muting.add((watch.cluster_id, watch.token))
    asked = [watch for watch in listening if (watch.cluster_id, watch.token) in muting]
    return (*found, *_muting(client, asked))


def _muting(client: redis.Redis, asked: Sequence[Watch]) -> Iterator[Receipt]:
    """Yield the receipts of the registrations that mute nodes, for these nodes only."""
    sets = read_all(client, [("zrange", watch.muted, 0, -1, False, True) for watch in asked])
    muted = {
        watch: muted_ms
        for watch, members in zip(asked, sets, strict=True)
        if (muted_ms := scores(watch.muted, members))
    }
    times = read_all(client, [("zmscore", watch.last_seen, [*muted[watch]]) for watch in muted])
    for (watch, muted_ms), some in zip(muted.items(), times, strict=True):
        yield Receipt(watch, _known(muted_ms, some), muted_ms)


def of_node(client: redis.Redis, listening: Sequence[Watch], machine_id: int) -> list[Receipt]:
    """Return the receipts of registrations, with the times of one node only."""
    wanted = [
        (kind, [machine_id]) for watch in listening for kind in (watch.last_seen, watch.muted)
    ]
    replies = iter(read_all(client, [("zmscore", *each) for each in wanted]))
    return [
        Receipt(
            watch,
            _known([machine_id], next(replies)),
            _known([machine_id], next(replies)),
        )
        for watch in listening
    ]


def _known(machine_ids: Sequence[int] | Mapping[int, int], times: Sequence[Any]) -> dict[int, int]:
    """Return the times that a sorted set has; a key of a wrong type has none."""
    found = zip(machine_ids, times, strict=False)
    return {i: int(at) for i, at in found if at is not None and isfinite(at)}
