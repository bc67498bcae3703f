"""How the senders of a queue are divided among its delivery workers. Pure.

Workers that run tell each other through Redis how many senders each has. A sender without a worker
goes to any worker that has less than its share; a worker with clearly more releases some.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

AT_ONCE = 16
"""Least number of senders that a worker releases at a time: their connections close meanwhile."""


def fair(mine: int, others: Sequence[int], unclaimed: int = 0) -> int:
    """Return a worker's share of all senders."""
    return ceil((mine + sum(others) + unclaimed) / (1 + len(others)))


def slack(share: int) -> int:
    """Return by how many senders a worker may differ from its share, as a hand-over costs time."""
    return max(4, share // 4)


def room(mine: int, others: Sequence[int], unclaimed: int) -> int:
    """Return how many unclaimed senders a worker claims at once; others claim the rest."""
    if not others:
        return unclaimed
    share = fair(mine, others, unclaimed)
    return max(share + slack(share) // 2 - mine, 0)


def surplus(mine: int, others: Sequence[int], *, giving: bool = False) -> int:
    """Return how many senders a worker has too many, 0 if it may keep them all.

    A worker that is ``giving`` goes on until it has its share.
    """
    share = fair(mine, others)
    return max(mine - share, 0) if giving or mine >= share + slack(share) else 0


def lacks(mine: int, others: Sequence[int]) -> bool:
    """Whether other workers are about to release senders for this worker."""
    return any(surplus(held, [mine, *_without(others, held)]) for held in others)


def _without(others: Sequence[int], held: int) -> list[int]:
    rest = list(others)
    rest.remove(held)
    return rest


def at_once(surplus: int) -> int:
    """Return how many of ``surplus`` senders a worker releases at a time."""
    return min(surplus, max(AT_ONCE, surplus // 8))
