"""Senders that this worker leaves alone for a while, because it cannot read what Redis has."""

from __future__ import annotations

from time import monotonic

HOLD_S = 10.0
"""How long a sender is left alone; then the worker looks again."""


class Holds:
    """Which senders are held, and what was said about them."""

    def __init__(self) -> None:
        self._until: dict[int, float] = {}
        self._said: dict[int, str] = {}

    def __contains__(self, sender: int) -> bool:
        return monotonic() < self._until.get(sender, 0.0)

    def __bool__(self) -> bool:
        now = monotonic()
        return any(now < until for until in self._until.values())

    def add(self, sender: int, why: str) -> bool:
        """Hold a sender; True if that is not known yet, and is to be said."""
        self._until[sender] = monotonic() + HOLD_S
        known = self._said.get(sender) == why
        self._said[sender] = why
        return not known

    def end(self, sender: int) -> None:
        """Note that a sender's log was read again."""
        if self._said:
            self._until.pop(sender, None)
            self._said.pop(sender, None)
