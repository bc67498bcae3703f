"""Limiting algorithms: one small function each, in one table. Source: docs/ratelimit.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import Protocol

from clusterer.modules.ratelimit.gauges import Gauges
from clusterer.modules.ratelimit.window import Window


class Algorithm(IntEnum):
    """Limiting algorithms, with their numbers on the wire."""

    NONE = 0
    TAILDROP = 1
    RED = 2
    FEEDBACK = 3
    NETWORK = 4
    HISTORY = 5


MEASURED = frozenset({Algorithm.FEEDBACK, Algorithm.NETWORK})
"""Algorithms that judge by what is measured on this machine."""

PERMUTATION = tuple(n * 61 % 100 for n in range(100))
"""Every number of 0..99 once, in an order that spreads those below any bound evenly: of checks
that follow each other, FEEDBACK refuses every other one at 50 %, and never a long run of them."""


class Judged(Protocol):
    """What a rule reads of a pipe."""

    @property
    def counter(self) -> int:
        """Own checks of the running interval, this one included."""
        ...

    @property
    def last(self) -> int:
        """Own checks of the last whole interval."""
        ...

    @property
    def remote_total(self) -> int:
        """Sum of the other machines' fresh counters."""
        ...

    @property
    def limit(self) -> int: ...

    @property
    def allowed(self) -> float:
        """What the limit allows in an interval."""
        ...

    @property
    def window(self) -> Window: ...

    @property
    def gauges(self) -> Gauges: ...


Rule = Callable[[Judged, float], bool]
"""``(pipe, now) -> passes``, called once for every check, after it was counted."""


def _none(pipe: Judged, now: float) -> bool:
    """Let everything pass; the pipe only counts."""
    return True


def _taildrop(pipe: Judged, now: float) -> bool:
    """Pass until the interval's allowance is used up, then nothing more."""
    return pipe.counter + pipe.remote_total <= pipe.allowed


def _red(pipe: Judged, now: float) -> bool:
    """Pass one check in ``load``, the whole number of times the last interval was overused.

    A limit of 0 lets nothing pass; load would have no value.
    """
    if pipe.allowed <= 0:
        return False
    load = int(pipe.last / pipe.allowed)
    return load == 0 or (pipe.counter + pipe.remote_total) % load == 0


def _feedback(pipe: Judged, now: float) -> bool:
    """Refuse the percentage that keeps the CPU load at the limit."""
    total = pipe.counter + pipe.remote_total
    return PERMUTATION[total % 100] >= pipe.gauges.drop_rate


def _network(pipe: Judged, now: float) -> bool:
    """Pass while no more bytes wait in the sockets than the limit says."""
    return pipe.gauges.queued_bytes <= pipe.limit


def _history(pipe: Judged, now: float) -> bool:
    """Pass while the last seconds' checks, own and remote ones, are within the limit."""
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
