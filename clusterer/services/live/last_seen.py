"""When the instances last saw the nodes: of each instance, of all together, or of one node."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import redis

from clusterer.store.badvalues import read_all, times_of
from clusterer.store.receptions import latest
from clusterer.store.watches import Watch


@dataclass(frozen=True, slots=True)
class LastSeen:
    """The time since an instance last saw a node, for one module."""

    receiver: int
    """machine_id of the instance."""
    module: str
    age_s: float
    muted_s: float | None
    """Seconds from now until the mute of the node ends; None if the node is not muted."""
    timeout_s: float
    """Module timeout; 0 if the module never mutes."""


@dataclass(frozen=True, slots=True)
class LastSeenTimes:
    """The times at which one instance last saw the nodes, for one of its registered modules."""

    watch: Watch
    last_seen_ms: Mapping[int, int]
    """machine_id → Redis ms; at first when the instance began to listen."""
    muted_ms: Mapping[int, int]
    """machine_id → Redis ms until which the instance drops the node's packets."""


def summed(client: redis.Redis, listening: Sequence[Watch]) -> tuple[LastSeenTimes, ...]:
    """Return one item for each module and cluster, with the latest times of all instances.

    Each instance that mutes nodes has a further item, for these nodes only.
    """
    found, muting = [], set()
    for watch, last_seen_ms, muted_ms in latest(client, listening):
        found.append(LastSeenTimes(watch, last_seen_ms, {}))
        if muted_ms:
            muting.add((watch.cluster_id, watch.token))
    asked = [watch for watch in listening if (watch.cluster_id, watch.token) in muting]
    return (*found, *_muting(client, asked))


def _muting(client: redis.Redis, asked: Sequence[Watch]) -> Iterator[LastSeenTimes]:
    """Yield the times of the registrations that mute nodes, for these nodes only."""
    sets = read_all(client, [("zrange", watch.muted, 0, -1, False, True) for watch in asked])
    muted = {
        watch: muted_ms
        for watch, members in zip(asked, sets, strict=True)
        if (muted_ms := times_of(watch.muted, members))
    }
    times = read_all(client, [("zmscore", watch.last_seen, [*muted[watch]]) for watch in muted])
    for (watch, muted_ms), some in zip(muted.items(), times, strict=True):
        yield LastSeenTimes(watch, _known(muted_ms, some), muted_ms)


def of_node(
    client: redis.Redis, listening: Sequence[Watch], machine_id: int
) -> list[LastSeenTimes]:
    """Return the times of registrations, of one node only."""
    wanted = [
        (kind, [machine_id]) for watch in listening for kind in (watch.last_seen, watch.muted)
    ]
    replies = iter(read_all(client, [("zmscore", *each) for each in wanted]))
    return [
        LastSeenTimes(
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


def by_node(times: Iterable[LastSeenTimes], now: float) -> Mapping[tuple[int, int], list[LastSeen]]:
    """Return by (cluster_id, machine_id) when the instances that listen last saw a node.

    ``now``: Redis TIME, UNIX seconds.
    """
    now_ms = now * 1000
    found: dict[tuple[int, int], list[LastSeen]] = {}
    for each in times:
        for machine_id in sorted({*each.last_seen_ms, *each.muted_ms}):
            place = each.watch.cluster_id, machine_id
            found.setdefault(place, []).append(_of(each, machine_id, now_ms))
    for items in found.values():
        items.sort(key=lambda item: (item.module, item.receiver))
    return found


def _of(times: LastSeenTimes, machine_id: int, now_ms: float) -> LastSeen:
    until = times.muted_ms.get(machine_id)
    return LastSeen(
        times.watch.receiver,
        times.watch.token,
        max(0.0, now_ms - times.last_seen_ms.get(machine_id, 0)) / 1000,
        None if until is None else max(0.0, until - now_ms) / 1000,
        times.watch.timeout_ms / 1000,
    )
