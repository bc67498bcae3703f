"""The registrations of modules in Redis, and the nodes that each of them last saw."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import redis

from clusterer.store import keys
from clusterer.store.badvalues import (
    Command,
    WrongType,
    bad,
    batches,
    field_number,
    ids,
    is_bad_data,
    read_all,
    scan,
    text,
    times_of,
)
from clusterer.store.client import Store, ms_of, translated
from clusterer.store.watches import LISTENING_MS, Reception, Watch

_SETS_AT_ONCE = 10
"""Sorted sets per command: Redis serves no other client meanwhile."""

_MOST_DIGITS = 15
"""Most digits of a timeout in ms; a longer number is a bad value."""


class Receptions(Store):
    """Reads the registrations of all instances, and their clocks."""

    def watches(self) -> list[Watch]:
        """Return the registrations with a timeout of all instances."""
        with translated(self._settings, "list the registered modules"):
            return [watch for watch in self._watches(self._receivers()) if watch.timeout_ms]

    def counter(self) -> tuple[bytes | None, int]:
        """Return the counter of registrations (None: there is none), and Redis ms."""
        what = "read the counter of registrations"
        found, time = self._read(what, ("get", keys.REGISTRATIONS), ("time",))
        return found, ms_of(time)

    def receptions(self) -> list[Reception]:
        """Return the nodes last seen by the instances that listen, by registration.

        A node that is muted for a registration has no clock there.
        """
        with translated(self._settings, "read the nodes last seen"):
            watches = [watch for watch in self._watches(self._receivers()) if watch.cluster_id]
            commands: list[Command] = [("time",)]
            for watch in watches:
                commands += [
                    ("hgetall", keys.modules(watch.receiver)),
                    ("zrange", watch.last_seen, 0, -1, False, True),
                ]
            time, *replies = read_all(self._client, commands)
        now_ms = ms_of(time)
        found = (
            _reception(watch, modules, clocks, now_ms)
            for watch, modules, clocks in zip(watches, replies[::2], replies[1::2], strict=True)
        )
        return [reception for reception in found if reception is not None]

    def _receivers(self) -> list[int]:
        """Return the instances; by a scan if the key of their set holds another type."""
        (members,) = read_all(self._client, [("smembers", keys.INSTANCES)])
        if isinstance(members, WrongType):
            prefix = keys.modules(0)[:-1]
            members = {name.removeprefix(prefix) for name in scan(self._client, f"{prefix}*")}
        return ids(keys.INSTANCES, members)

    def _watches(self, receivers: Sequence[int]) -> list[Watch]:
        hashes = read_all(self._client, [("hgetall", keys.modules(found)) for found in receivers])
        return [
            watch
            for receiver, fields in zip(receivers, hashes, strict=True)
            for watch in watches_in(receiver, fields)
        ]


def _reception(
    watch: Watch,
    modules: Mapping[bytes, bytes],
    clocks: Iterable[tuple[bytes, float]],
    now_ms: int,
) -> Reception | None:
    """Return the nodes that an instance last saw; None if the instance does not listen."""
    begun, heartbeat = (
        field_number(keys.modules(watch.receiver), modules, name) for name in ("begun", "heartbeat")
    )
    if not begun or not heartbeat or now_ms - heartbeat >= LISTENING_MS:
        return None
    return Reception(watch, begun, times_of(watch.last_seen, clocks), now_ms)


def latest(
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


def watches_in(receiver: int, fields: Mapping[bytes, bytes]) -> list[Watch]:
    """Return the registrations in an instance's hash; report bad values."""
    found = (_watch(receiver, *item) for item in fields.items() if b":" in item[0])
    return [watch for watch in found if watch is not None]


def _watch(receiver: int, field: bytes, value: bytes) -> Watch | None:
    if not value.isdigit() or len(value) > _MOST_DIGITS:
        bad(keys.modules(receiver), f"field {text(field)}", value, "a timeout in ms")
        return None
    try:
        return Watch.parse(receiver, text(field), int(value))
    except ValueError:
        bad(keys.modules(receiver), "field", field, "module:cluster_id")
        return None
