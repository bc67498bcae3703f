"""How often a process does what it repeats: at intervals, without a gap, or with rests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from time import monotonic


class Intervals:
    """The times of a process's last occasional actions. For one thread."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}

    def due(self, what: str, every_s: float) -> bool:
        """Whether the action ``what`` is due, and note that it is done.

        The action is due for the first time ``every_s`` seconds after the first call.
        """
        now = monotonic()
        due = now - self._last.setdefault(what, now) >= every_s
        if due:
            self._last[what] = now
        return due


class SteadyRun:
    """The time for which a process has repeated an action without a gap. For one thread."""

    def __init__(self) -> None:
        self._last = self._since = -inf

    def lasted_s(self, now: float, gap_s: float) -> float:
        """Note the action at ``now``; return the seconds without a gap longer than ``gap_s``.

        A clock that is set back makes a gap too.
        """
        if not 0 <= now - self._last <= gap_s:
            self._since = now
        self._last = now
        return now - self._since


class DutyCycle:
    """Limits an action to a part of the time of a process. For one thread."""

    def __init__(self) -> None:
        self._next = -inf

    def may_run(self) -> bool:
        """Whether the rest after the last run is over."""
        return monotonic() >= self._next

    @contextmanager
    def run(self, pauses: float) -> Iterator[None]:
        """Measure a run; rest for ``pauses`` times its duration afterwards."""
        began = monotonic()
        try:
            yield
        finally:
            ended = monotonic()
            self._next = max(self._next, ended + (ended - began) * pauses)

    def rest(self, rest_s: float) -> None:
        """Rest for at least ``rest_s`` seconds from now."""
        self._next = monotonic() + rest_s
