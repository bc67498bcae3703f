"""The registrations of modules in Redis, and the nodes that each of them last saw."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from clusterer.store import keys
from clusterer.store.badvalues import (
    Command,
    WrongType,
    bad,
    field_number,
    ids,
    read_all,
    scan,
    text,
    times_of,
)
from clusterer.store.client import Store, ms_of, translated
from clusterer.store.watches import LISTENING_MS, Reception, Watch

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
