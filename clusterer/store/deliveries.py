"""Values between Redis and a delivery worker: claims and renewals, commits and releases."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from redis.client import Pipeline

from clusterer.membership.paths import Path
from clusterer.membership.views import ClusterKey
from clusterer.store import keys
from clusterer.store.badvalues import batches, pairs
from clusterer.store.paths import records_of

LEASE_MS = 1000
"""Life of a lease without a renewal: the log of a killed worker waits so long at least."""

GUARD_MS = 1000
"""Life of a closing guard without a renewal."""

STATS = ("sent", "failed", "skipped", "lost", "last_delivered")
"""Counters of each sender's packets to each destination."""

_AT_ONCE = 1000
"""Destinations that one command names: Redis serves no other client meanwhile."""

_SINCE = "since "
_COUNTS = re.compile(r"\d+:[a-z0-9]+")

LogEntry = tuple[bytes, list[bytes]]
"""Id and flat fields of one entry, as Redis sends it."""


@dataclass(frozen=True, slots=True)
class Claim:
    """State of a sender's deliveries at the moment a worker took the lease."""

    sender: int
    tail: int
    """Sequence of the last packet appended."""
    counts: Mapping[ClusterKey, int]
    """Packets ever appended, by cluster."""
    since_ms: Mapping[ClusterKey, int]
    """Redis ms of each cluster's first packet."""
    committed: Mapping[str, int]
    """Destination → sequence of the last packet written whole."""
    committed_counts: Mapping[str, int]
    """``cluster/machine/generation`` → the cluster's packet count at the committed offset."""
    guarded: frozenset[str]
    """Destinations to which another worker's connection may still be open."""
    number: int = 0
    """Number of claims of the log so far, this claim included."""
    paths: Mapping[str, Path] = field(default_factory=dict)
    """Destination → the sender's record of the path."""
    paths_counter: int = 0
    """Grows with each change of the records."""
    now_ms: int = 0
    """Redis's time at the claim."""

    @property
    def log(self) -> str:
        """The key of the sender's log."""
        return keys.log(self.sender)


@dataclass(frozen=True, slots=True)
class Renewed:
    """Reply of Redis to the renewal of leases."""

    lost: frozenset[int]
    """Senders whose lease is lost."""
    paths_counters: Mapping[int, int]
    """The counters of the records of all senders' paths; no entry where a sender has none."""
    now_ms: int
    """Redis's time."""


@dataclass(frozen=True, slots=True)
class Move:
    """A committed offset that moved."""

    destination: str
    sequence: int
    n: int | None


@dataclass(frozen=True, slots=True)
class Rest:
    """Destinations that moved to one place together, and the packets that each of them skipped."""

    destinations: Sequence[str]
    sequence: int
    n: int
    skipped: int
    lost: int


@dataclass(frozen=True, slots=True)
class ClosingGuards:
    """The closing guards of a sender at one moment, by destination."""

    up: frozenset[str]
    committed: Mapping[str, int]
    committed_counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Commit:
    """Changes of one sender's deliveries that Redis does not have yet."""

    sender: int
    moves: Sequence[Move]
    counters: Mapping[str, int | str]
    """Counter → increment, or 'now' for the time."""
    needed_from: int | None
    """First sequence that is still to be delivered: the log may be trimmed below it. None trims
    nothing."""
    rests: Sequence[Rest] = ()


class Released(Enum):
    """Result of the release of a lease; the values are the replies of release.lua."""

    LOST = -1
    KEPT = 0
    """The worker keeps the lease: the log has more packets to deliver."""
    DELIVERED = 1
    """The log has no packet to deliver."""
    PENDING = 2
    """The sender stays pending: another worker delivers the rest of the log."""


def claim_of(sender: int, reply: list[Any]) -> Claim:
    """Return the claim in a reply of claim.lua."""
    committed, committed_counts, counters, guards, records, counter, now_ms = reply
    numbers = _numbers(counters)
    return Claim(
        sender=sender,
        tail=numbers.get("sequence", 0),
        counts=by_cluster(numbers),
        since_ms=firsts(numbers),
        committed=_numbers(committed),
        committed_counts=_numbers(committed_counts),
        guarded=frozenset(name.decode() for name in guards[::2]),
        number=numbers.get("claims", 0),
        paths=records_of(sender, pairs(records)),
        paths_counter=int(counter) if counter and counter.isdigit() else 0,
        now_ms=now_ms,
    )


def guards_of(reply: list[Any]) -> ClosingGuards:
    """Return the guards in a reply of read_guards.lua."""
    up, committed, committed_counts = reply
    return ClosingGuards(
        frozenset(name.decode() for name in up), _numbers(committed), _numbers(committed_counts)
    )


def by_cluster(counters: Mapping[str, int]) -> dict[ClusterKey, int]:
    """Return the packets ever appended to each cluster, from a sender's counters."""
    return {ClusterKey.parse(name): n for name, n in counters.items() if _COUNTS.fullmatch(name)}


def firsts(counters: Mapping[str, int]) -> dict[ClusterKey, int]:
    """Return when each cluster's first packet was appended (Redis ms), from the counters."""
    return {
        ClusterKey.parse(name.removeprefix(_SINCE)): ms
        for name, ms in counters.items()
        if name.startswith(_SINCE)
    }


def _numbers(flat: Sequence[bytes]) -> dict[str, int]:
    return decoded_numbers(pairs(flat))


def decoded_numbers(data: Mapping[Any, Any]) -> dict[str, int]:
    """Return a hash of Redis whose values are integers."""
    return {field.decode(): int(value) for field, value in data.items()}


def forget(pipe: Pipeline, sender: int, destinations: Sequence[str]) -> None:
    """Add to ``pipe`` the deletion of what Redis has of a sender's deliveries to destinations."""
    for some in batches(destinations, _AT_ONCE):
        for name in (keys.committed, keys.committed_count, keys.closing):
            pipe.hdel(name(sender), *some)
        pipe.hdel(keys.stats(sender), *(f"{each}/{name}" for each in some for name in STATS))
