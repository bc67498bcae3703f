"""The senders, and what Redis has of the deliveries of each: hashes, read whole or by field."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress, islice
from typing import Any, NamedTuple

import redis

from clusterer.membership.views import ClusterKey
from clusterer.store import keys
from clusterer.store.badvalues import Command, number, read_all

_KEYS_AT_ONCE = 1000
"""Keys per command."""

Hash = Mapping[bytes, bytes]
"""A hash of Redis."""


_HASHES = (keys.stats, keys.counters, keys.committed_count, keys.committed)
"""Keys of a sender's hashes, in the order of the fields of `SenderHashes`."""


class SenderHashes(NamedTuple):
    """The hashes of a sender's deliveries in Redis."""

    stats: Hash
    counters: Hash
    committed_count: Hash
    committed: Hash
    waiting: int
    """Entries in the sender's log."""


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of one node in the hashes of a sender."""

    stats: Sequence[bytes]
    cluster: bytes
    """In the counters."""
    node: bytes
    """In the committed counts and offsets."""

    def read(self, client: redis.Redis, senders: Sequence[int]) -> dict[int, SenderHashes]:
        """Return the hashes of some senders, with these fields only; few round trips."""
        wanted = [command for sender in senders for command in self._commands(sender)]
        replies = iter(read_all(client, wanted))
        return {sender: self._hashes(replies) for sender in senders}

    def _commands(self, sender: int) -> Iterator[Command]:
        for name, fields in zip(_HASHES, self._names, strict=True):
            yield "hmget", name(sender), fields
        yield "xlen", keys.log(sender)

    def _hashes(self, replies: Iterator[Any]) -> SenderHashes:
        stats, counters, count, committed = (
            _present(fields, next(replies)) for fields in self._names
        )
        return SenderHashes(stats, counters, count, committed, next(replies))

    @property
    def _names(self) -> Sequence[Sequence[bytes]]:
        return self.stats, [self.cluster], [self.node], [self.node]


def _present(names: Sequence[bytes], values: Sequence[bytes | None]) -> Hash:
    """Return the fields that a hash has; none of a key of a wrong type, which has no values."""
    found = zip(names, values, strict=False)
    return {name: value for name, value in found if value is not None}


def senders(
    client: redis.Redis, machine_ids: Iterable[int], known: Collection[int] = ()
) -> list[int]:
    """Return the senders among ``machine_ids``. One command asks for 1,000 of them.

    ``known``: the senders of an earlier call; while they are the same, a second command for each
    1,000 nodes is enough.
    """
    found: list[int] = []
    waiting = iter(sorted(machine_ids))
    while batch := list(islice(waiting, _KEYS_AT_ONCE)):
        count, expected = _existing(client, batch), sorted({*batch}.intersection(known))
        if count and count == len(expected) == _existing(client, expected):
            found += expected
        elif count:
            there = read_all(client, [("exists", keys.counters(i)) for i in batch])
            found += compress(batch, there)
    return found


def _existing(client: redis.Redis, machine_ids: Sequence[int]) -> int:
    """Return how many of the machine_ids, at least one, are senders."""
    return int(client.exists(*map(keys.counters, machine_ids)))


def names(sender: int) -> list[str]:
    """Return the keys of a sender's hashes, in the order of the fields of `SenderHashes`."""
    return [name(sender) for name in _HASHES]


def read(client: redis.Redis, senders: Sequence[int]) -> dict[int, SenderHashes]:
    """Return the whole hashes of some senders; few round trips."""
    wanted = [command for sender in senders for command in _commands(sender)]
    replies = iter(read_all(client, wanted))
    return {sender: SenderHashes(*islice(replies, len(SenderHashes._fields))) for sender in senders}


def _commands(sender: int) -> Iterator[Command]:
    for name in names(sender):
        yield "hgetall", name
    yield "xlen", keys.log(sender)


def counters(client: redis.Redis, machine_ids: Sequence[int]) -> Mapping[int, Hash]:
    """Return the counters of some senders: sequence, and packets per cluster."""
    replies = read_all(client, [("hgetall", keys.counters(sender)) for sender in machine_ids])
    return dict(zip(machine_ids, replies, strict=True))


def offered(key: ClusterKey, known: Mapping[int, Hash]) -> int:
    """Return the packets that all senders ever sent to a cluster; ``known``: their counters."""
    name = str(key)
    return sum(
        number(keys.counters(sender), f"field {name}", found.get(name.encode()))
        for sender, found in known.items()
    )
