"""The clocks of registrations: when the instances last saw the nodes, and which they mute."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import redis

from clusterer.store.badvalues import batches, is_bad_data, read_all, times_of
from clusterer.store.watches import Watch

_SETS_AT_ONCE = 10
"""Sorted sets per command: Redis serves no other client meanwhile."""


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
    for watch, last_seen_ms, muted_ms in _latest(client, listening):
        found.append(LastSeenTimes(watch, last_seen_ms, {}))
        if muted_ms:
            muting.add((watch.cluster_id, watch.token))
    asked = [watch for watch in listening if (watch.cluster_id, watch.token) in muting]
    return (*found, *_muting(client, asked))


def _latest(
    client: redis.Redis, watches: Iterable[Watch]
) -> list[tuple[Watch, dict[int, int], dict[int, int]]]:
    """Return for each module and cluster when any of ``watches`` last saw each node, in Redis ms.

    One registration stands for all of its module and cluster; after it come the latest times of
    the nodes, and those until which nodes are muted. Redis compares the times.
    """
    groups: dict[tuple[int, str], list[Watch]] = {}
    for watch in watches:
        groups.setdefault((watch.cluster_id, watch.token), []).append(watch)
    return [
        (
            some[0],
            _highest(client, [watch.last_seen for watch in some]),
            _highest(client, [watch.muted for watch in some]),
        )
        for _, some in sorted(groups.items())
    ]


def _highest(client: redis.Redis, names: Sequence[str]) -> dict[int, int]:
    """Return the highest score of each machine_id in some sorted sets."""
    parts = list(batches(names, _SETS_AT_ONCE))
    pipe = client.pipeline(transaction=False)
    for part in parts:
        pipe.zunion(part, aggregate="MAX", withscores=True)
    found: dict[bytes, float] = {}
    for part, reply in zip(parts, pipe.execute(raise_on_error=False), strict=True):
        members = reply
        if isinstance(reply, Exception):
            if not is_bad_data(reply):
                raise reply
            each = read_all(client, [("zrange", name, 0, -1, False, True) for name in part])
            members = [member for some in each for member in some]
        for member, at in members:
            found[member] = max(at, found.get(member, at))
    return times_of(names[0], found.items())


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
