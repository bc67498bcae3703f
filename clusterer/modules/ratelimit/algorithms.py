"""Limiting algorithms, one rule each, and what the rules read. Source: docs/ratelimit.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clusterer.modules.ratelimit.pipe import Pipe

WINDOW_S = 10.0
"""Length of HISTORY's window, 2.2's default."""

SLOTS_PER_S = 5
"""A slot lasts 200 ms, as in 2.2: a check leaves the window with its slot."""

SLOTS = int(WINDOW_S * SLOTS_PER_S)
_BEFORE_ALL = -(2**63)


class Algorithm(IntEnum):
    """Limiting algorithms, with their numbers on the wire."""

    NONE = 0
    TAILDROP = 1
    RED = 2
    FEEDBACK = 3
    NETWORK = 4
    HISTORY = 5


MEASURED = frozenset({Algorithm.FEEDBACK, Algorithm.NETWORK})
"""Algorithms whose rules read measurements of this host."""

PERMUTATION = tuple(n * 61 % 100 for n in range(100))
"""Every number of 0..99 once, in an order that spreads those below any bound evenly: at 50 %
FEEDBACK refuses every other check, and never a long run of checks."""


class Gauges:
    """Latest measurements of this host, shared by all pipes of an instance.

    The sampler alone writes them, and replaces each field in one step: readers need no lock.
    """

    __slots__ = ("drop_rate", "queued_bytes")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Set values that refuse nothing: there is no measurement."""
        self.drop_rate = 0.0
        """Percentage of checks that FEEDBACK refuses; 100 and more is all of them."""
        self.queued_bytes = 0.0
        """Unread bytes in the sockets, for NETWORK."""


class Window:
    """Checks of the current slot and the `SLOTS` - 1 before it.

    A ring of slots and their sum: the cost of a check does not depend on the number of checks.
    """

    __slots__ = ("_ring", "_slot", "total")

    def __init__(self) -> None:
        self.total = 0
        """Checks in the window, as of the last call."""
        self._slot = _BEFORE_ALL
        self._ring: list[int] = []  # made at the first check: most pipes never need a ring

    def add(self, now: float) -> int:
        """Count a check at ``now`` and return how many the window has, this check included.

        A ``now`` older than the last one counts in the newest slot: another thread may have read
        the clock later and counted first.
        """
        slot = int(now * SLOTS_PER_S)
        if slot > self._slot:
            self._move_to(slot)
        self._ring[self._slot % SLOTS] += 1
        self.total += 1
        return self.total

    def advance(self, now: float) -> None:
        """Remove the checks that are too old at ``now``."""
        slot = int(now * SLOTS_PER_S)
        if self.total and slot > self._slot:
            self._move_to(slot)

    def _move_to(self, slot: int) -> None:
        if slot - self._slot >= SLOTS:
            self._ring = [0] * SLOTS
            self.total = 0
        else:
            for old in range(self._slot + 1, slot + 1):
                self.total -= self._ring[old % SLOTS]
                self._ring[old % SLOTS] = 0
        self._slot = slot


Rule = Callable[["Pipe", float], bool]
"""``(pipe, now) -> passes``, called once for every check, after the check was counted."""


def _none(pipe: Pipe, now: float) -> bool:
    """Pass every check; the pipe only counts."""
    return True


def _taildrop(pipe: Pipe, now: float) -> bool:
    """Pass until the interval's allowance is used up, then nothing more."""
    return pipe.counter + pipe.remote_total <= pipe.allowed


def _red(pipe: Pipe, now: float) -> bool:
    """Pass one check in ``load``, the whole number of times the last interval was overused.

    A limit of 0 passes nothing: its load has no value.
    """
    if pipe.allowed <= 0:
        return False
    load = int(pipe.last / pipe.allowed)
    return load == 0 or (pipe.counter + pipe.remote_total) % load == 0


def _feedback(pipe: Pipe, now: float) -> bool:
    """Refuse the percentage that keeps the CPU load at the limit."""
    total = pipe.counter + pipe.remote_total
    return PERMUTATION[total % 100] >= pipe.gauges.drop_rate


def _network(pipe: Pipe, now: float) -> bool:
    """Pass while the sockets hold no more unread bytes than the limit."""
    return pipe.gauges.queued_bytes <= pipe.limit


def _history(pipe: Pipe, now: float) -> bool:
    """Pass while the window's own checks plus the remote ones are within the limit."""
    return pipe.window.add(now) + pipe.remote_total <= pipe.limit


RULES: Mapping[Algorithm, Rule] = MappingProxyType(
    {
        Algorithm.NONE: _none,
        Algorithm.TAILDROP: _taildrop,
        Algorithm.RED: _red,
        Algorithm.FEEDBACK: _feedback,
        Algorithm.NETWORK: _network,
        Algorithm.HISTORY: _history,
    }
)
