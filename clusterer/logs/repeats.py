"""Which lines of a flood are said, and how many were not: pure, times in monotonic seconds."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

WINDOW_S = 10.0
BURST = 20
"""Lines of one kind that are said per window."""

_MOST_KINDS = 1_000
"""Kinds of lines remembered; past it, all are forgotten."""


@dataclass(slots=True)
class _Kind:
    until: float
    said: int = 0
    left_out: int = 0


class Repeats:
    """Counts lines by kind."""

    def __init__(self, burst: int = BURST, window_s: float = WINDOW_S) -> None:
        self._burst = burst
        self._window_s = window_s
        self._kinds: dict[Hashable, _Kind] = {}

    def admits(self, kind: Hashable, now: float) -> bool:
        """Whether one more line of ``kind`` is to be said.

        After a False, `over` tells how many were left out once the window has ended.
        """
        found = self._kinds.get(kind)
        if found is None or (now >= found.until and not found.left_out):
            if len(self._kinds) >= _MOST_KINDS:
                self._forget(now)
            found = self._kinds[kind] = _Kind(now + self._window_s)
        if found.said < self._burst:
            found.said += 1
            return True
        found.left_out += 1
        return False

    def clear(self) -> None:
        """Forget all kinds, and what was left out of them."""
        self._kinds = {}

    def over(self, now: float) -> list[tuple[Hashable, int]]:
        """Return the kinds whose window has ended, each with how many lines were left out."""
        ended = {
            kind: found.left_out
            for kind, found in self._kinds.items()
            if found.left_out and now >= found.until
        }
        for kind in ended:
            del self._kinds[kind]
        return list(ended.items())

    def next_end(self) -> float | None:
        """When a window with lines left out ends next; None if there is none."""
        return min((found.until for found in self._kinds.values() if found.left_out), default=None)

    def _forget(self, now: float) -> None:
        self._kinds = {
            kind: found
            for kind, found in self._kinds.items()
            if found.left_out or now < found.until
        }
        if len(self._kinds) >= _MOST_KINDS:
            self._kinds.clear()
