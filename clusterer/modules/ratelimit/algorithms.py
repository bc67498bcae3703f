"""Limiting algorithms: one small function each, in one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import IntEnum
from types import MappingProxyType


class Algorithm(IntEnum):
    """Limiting algorithms, with their numbers on the wire."""

    NONE = 0
    TAILDROP = 1
    RED = 2
    FEEDBACK = 3
    NETWORK = 4
    HISTORY = 5


Rule = Callable[[int, int, float], bool]
"""``(total, last, allowed) -> passes``: own and fresh remote checks of the running interval, this
one included; own checks of the last whole interval; what the limit allows in an interval."""


def _none(total: int, last: int, allowed: float) -> bool:
    """Let everything pass; the pipe only counts."""
    return True


def _taildrop(total: int, last: int, allowed: float) -> bool:
    """Pass until the interval's allowance is used up, then nothing more."""
    return total <= allowed


def _red(total: int, last: int, allowed: float) -> bool:
    """Pass one check in ``load``, the whole number of times the last interval was overused.

    A limit of 0 lets nothing pass; load would have no value.
    """
    if allowed <= 0:
        return False
    load = int(last / allowed)
    return load == 0 or total % load == 0


RULES: Mapping[Algorithm, Rule] = MappingProxyType(
    {Algorithm.NONE: _none, Algorithm.TAILDROP: _taildrop, Algorithm.RED: _red}
)
"""What `RateLimit.check` can do. Pipes of the other algorithms are received and shown only."""
