"""A bounded table whose entries expire. The time is an argument; no thread, no network."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from heapq import heapify, heappop, heappush
from typing import Generic, NamedTuple, TypeVar, cast

from clusterer.errors import InvalidArgument
from clusterer.runtime import forks

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

ENTRY_BYTES = 2_000
"""Memory of an entry beside its payload, measured; see `Bounds.max_bytes`."""

_SPARE_TICKETS = 1_000


class Reason(StrEnum):
    """Why an entry changed."""

    MESSAGE = "message"
    """A node sent a message."""
    EXPIRED = "expired"
    EVICTED = "evicted"
    """The table was full, and the entry was the least recently updated one."""
    SILENT = "silent"
    """The module timeout of the node that sent the entry passed."""
    NOT_UP = "not_up"
    """The node that sent the entry was not up for too long."""
    FORGOTTEN = "forgotten"
    """`forget` was called for the node that sent the entry."""


@dataclass(frozen=True, slots=True)
class Change(Generic[V]):
    """One change: added (no ``old``), removed (no ``new``), or updated (both)."""

    old: V | None
    new: V | None
    reason: Reason = Reason.MESSAGE

    @property
    def value(self) -> V:
        """The new value, or the old one if the entry was removed."""
        return cast(V, self.old if self.new is None else self.new)

    @property
    def kind(self) -> str:
        """``added``, ``updated`` or ``removed``."""
        if self.old is None:
            return "added"
        return "removed" if self.new is None else "updated"


@dataclass(frozen=True, slots=True)
class Bounds:
    """Greatest size of an `ExpiringTable`."""

    max_entries: int = 100_000
    max_bytes: int = 512 * 1024 * 1024
    """Payloads plus `ENTRY_BYTES` each. A hostile payload has up to 65,535 bytes."""

    def __post_init__(self) -> None:
        """Raise `InvalidArgument` for bounds too small for one entry of the largest size."""
        if self.max_entries < 1 or self.max_bytes < 100_000:
            raise InvalidArgument(f"{self}: must have room for 1 entry and 100,000 bytes")


class _Entry(NamedTuple):
    value: object
    until: float
    size: int
    ticket: int


class ExpiringTable(Generic[K, V]):
    """Values by key, in groups of keys. Safe to share between threads.

    At its bounds the table evicts the least recently put entries. Its cost follows the entries
    that are due.
    """

    # Not `cachetools.TLRUCache` 8.0: its `get` takes 2.0 µs (here 0.2) and changes which entry is
    # evicted next, it does not report evicted entries, and it has one bound and no groups.
    # python -m timeit -s 'from cachetools import TLRUCache' -s 'c = TLRUCache(9, lambda k, v, now:
    # now + 99); c[1] = 2' 'c.get(1)'

    def __init__(self, group: Callable[[K], Hashable], bounds: Bounds) -> None:
        """Start empty; ``group`` returns the group of a key."""
        self._group = group
        self._bounds = bounds
        self._lock = forks.lock()
        self._entries: dict[K, _Entry] = {}
        self._groups: dict[Hashable, dict[K, None]] = {}
        self._bytes = 0
        self._due: list[tuple[float, int, K]] = []
        self._tickets = 0

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, key: K, value: V, until: float, size: int, now: float) -> list[Change[V]]:
        """Set ``key`` until ``until`` (infinity: for ever); return the changes.

        ``size``: bytes of the payload. An equal value changes only the time and makes no change.
        """
        with self._lock:
            changes = self._expire(now)
            old = self._pop(key)
            self._add(key, value, until, size + ENTRY_BYTES)
            if old != value:
                changes.append(Change(old, value))
            while len(self._entries) > self._bounds.max_entries or (
                self._bytes > self._bounds.max_bytes
            ):
                oldest = self._pop(next(iter(self._entries)))
                changes.append(Change(oldest, None, Reason.EVICTED))
            return changes

    def discard(self, keys: Iterable[K], reason: Reason = Reason.MESSAGE) -> list[Change[V]]:
        """Remove the entries of ``keys``; return the changes."""
        with self._lock:
            removed = [self._pop(key) for key in keys]
        return [Change(old, None, reason) for old in removed if old is not None]

    def discard_where(self, wanted: Callable[[V], bool], reason: Reason) -> list[Change[V]]:
        """Remove the entries whose value is ``wanted``; return the changes."""
        with self._lock:
            keys = [key for key, entry in self._entries.items() if wanted(cast(V, entry.value))]
            return [Change(self._pop(key), None, reason) for key in keys]

    def expire(self, now: float) -> list[Change[V]]:
        """Remove the entries that expired by ``now``; return the changes."""
        with self._lock:
            return self._expire(now)

    def get(self, key: K, now: float) -> V | None:
        """Return the value of ``key`` unless it expired."""
        entry = self._entries.get(key)
        return None if entry is None or entry.until <= now else entry.value  # type: ignore[return-value]

    def known_keys(self, group: Hashable | None = None) -> list[K]:
        """Return the keys of one group, or all; expired ones included."""
        with self._lock:
            return list(self._entries if group is None else self._groups.get(group, ()))

    def values(self, now: float, group: Hashable | None = None) -> list[V]:
        """Return the values of one group, or all, that have not expired; latest put last."""
        with self._lock:
            if group is None:
                entries = list(self._entries.values())
            else:
                entries = [self._entries[key] for key in self._groups.get(group, ())]
        return [entry.value for entry in entries if entry.until > now]  # type: ignore[misc]

    # -- with the lock held -----------------------------------------------------------------------

    def _add(self, key: K, value: V, until: float, size: int) -> None:
        self._tickets += 1
        self._entries[key] = _Entry(value, until, size, self._tickets)
        self._groups.setdefault(self._group(key), {})[key] = None
        self._bytes += size
        if until < math.inf:
            heappush(self._due, (until, self._tickets, key))
            if len(self._due) > 2 * len(self._entries) + _SPARE_TICKETS:
                self._drop_old_tickets()

    def _pop(self, key: K) -> V | None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return None
        self._bytes -= entry.size
        name = self._group(key)
        group = self._groups[name]
        del group[key]
        if not group:
            del self._groups[name]
        return entry.value  # type: ignore[return-value]

    def _expire(self, now: float) -> list[Change[V]]:
        changes = []
        due = self._due
        while due and due[0][0] <= now:
            _, ticket, key = heappop(due)
            if self._holds(key, ticket):
                changes.append(Change(self._pop(key), None, Reason.EXPIRED))
        return changes

    def _drop_old_tickets(self) -> None:
        """Keep the heap as small as the table: every put leaves an outdated ticket there."""
        self._due = [due for due in self._due if self._holds(due[2], due[1])]
        heapify(self._due)

    def _holds(self, key: K, ticket: int) -> bool:
        entry = self._entries.get(key)
        return entry is not None and entry.ticket == ticket
