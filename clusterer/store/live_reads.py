"""Reads of keys of the store that share one round trip with other reads, for the live views.

A read yields commands, takes its replies from those of all reads, and returns the next read: that
of the keys which the replies name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from clusterer.membership.paths import Path
from clusterer.store import keys
from clusterer.store.badvalues import Command, field_number, ids
from clusterer.store.paths import records_of
from clusterer.store.receptions import watches_in
from clusterer.store.watches import LISTENING_MS, Watch


@dataclass(frozen=True, slots=True)
class PathsRead:
    """A read of the path records of all senders."""

    senders: tuple[int, ...] = ()
    """machine_ids with records, as the read before this one found them."""

    def commands(self) -> Iterator[Command]:
        """Yield the commands."""
        yield "hkeys", keys.PATHS
        for sender in self.senders:
            yield "hgetall", keys.paths(sender)

    def of(self, replies: Iterator[Any]) -> tuple[PathsRead, dict[int, dict[str, Path]]]:
        """Return, from the replies to `commands`, the next read and the records of each sender."""
        senders = tuple(ids(keys.PATHS, next(replies)))
        records = {sender: records_of(sender, next(replies)) for sender in self.senders}
        return PathsRead(senders), records


@dataclass(frozen=True, slots=True)
class ListeningRead:
    """A read of the registrations with a cluster of all instances."""

    watches: Mapping[int, tuple[Watch, ...]] = field(default_factory=dict)
    """The registrations of each instance, as the read before this one found them."""

    def commands(self) -> Iterator[Command]:
        """Yield the commands."""
        yield "smembers", keys.INSTANCES
        for receiver in self.watches:
            yield "hgetall", keys.modules(receiver)

    def of(self, replies: Iterator[Any], now_ms: float) -> tuple[ListeningRead, list[Watch]]:
        """Return, from the replies to `commands`, the next read, and the registrations of this read
        whose instances listen now.

        ``now_ms``: Redis ms.
        """
        found: dict[int, tuple[Watch, ...]] = dict.fromkeys(ids(keys.INSTANCES, next(replies)), ())
        listening: list[Watch] = []
        for receiver, watches in self.watches.items():
            modules: Mapping[bytes, bytes] = next(replies)
            if receiver in found:
                found[receiver] = _watches(receiver, modules)
                heartbeat_ms = field_number(keys.modules(receiver), modules, "heartbeat")
                listening += watches if now_ms - heartbeat_ms <= LISTENING_MS else ()
        return ListeningRead(found), listening


def _watches(receiver: int, modules: Mapping[bytes, bytes]) -> tuple[Watch, ...]:
    clocked = [watch for watch in watches_in(receiver, modules) if watch.cluster_id]
    return tuple(sorted(clocked, key=lambda watch: (watch.cluster_id, watch.token)))
