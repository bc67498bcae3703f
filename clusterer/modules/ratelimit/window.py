"""A sliding window: how many checks the last seconds saw."""

from __future__ import annotations

WINDOW_S = 10.0
"""Length of the window, 2.2's default."""

SLOTS_PER_S = 5
"""A slot lasts 200 ms, as in 2.2: a check leaves the window with its slot."""

SLOTS = int(WINDOW_S * SLOTS_PER_S)
_BEFORE_ALL = -(2**63)


class Window:
    """Checks of the running slot and the `SLOTS` - 1 before it.

    A ring of slots and their sum: the cost of a check does not depend on how many there were.
    """

    __slots__ = ("_ring", "_slot", "total")

    def __init__(self) -> None:
        self.total = 0
        """Checks in the window, as of the last call."""
        self._slot = _BEFORE_ALL
        self._ring: list[int] = []  # made at the first check: most pipes never need one

    def add(self, now: float) -> int:
        """Count a check at ``now`` and return how many the window has, this one included.

        A ``now`` older than the last one (a thread may wait between reading the clock and
        coming here) counts in the newest slot.
        """
        slot = int(now * SLOTS_PER_S)
        if slot > self._slot:
            self._move_to(slot)
        self._ring[self._slot % SLOTS] += 1
        self.total += 1
        return self.total

    def advance(self, now: float) -> None:
        """Let go what is too old at ``now``."""
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
