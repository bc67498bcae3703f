"""Limits on log lines: a flood of bad packets must not become a flood of lines.

`LimitedLog` limits lines where they are written, also in an application with a log of its own.
The handler of this project's processes limits all other lines, those of libraries too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from clusterer.runtime import forks

MOST_KINDS = 1_000
"""Kinds of lines that a limiter counts; all further kinds share one limit."""

_OTHERS = object()

L = TypeVar("L")


@dataclass(slots=True)
class _Window(Generic[L]):
    ends_at: float
    admitted: int = 0
    left_out: int = 0
    last: L | None = None
    """The last line that was left out."""


class Limiter(Generic[L]):
    """Admits ``burst`` lines of each kind per window; times are monotonic seconds.

    A window begins with the first line after the end of the window before. Not thread-safe.
    """

    def __init__(self, burst: int, window_s: float) -> None:
        self._burst = burst
        self._window_s = window_s
        self._windows: dict[Hashable, _Window[L]] = {}
        """The window that ends first comes first."""

    def admit(self, kind: Hashable, now: float, line: L | None = None) -> int | None:
        """Return None if the line is to be left out, else how many lines of its kind were.

        The limiter keeps ``line`` for `ended` if it is left out.
        """
        if kind not in self._windows and not self._has_room(now):
            kind = _OTHERS
        window, left_out = self._windows.get(kind), 0
        if window is None or now >= window.ends_at:
            before = self._windows.pop(kind, None)
            left_out = before.left_out if before else 0
            window = self._windows[kind] = _Window(now + self._window_s)
        if window.admitted == self._burst:
            window.left_out += 1
            window.last = line
            return None
        window.admitted += 1
        return left_out

    def _has_room(self, now: float) -> bool:
        """Delete ended windows while there are too many; return whether one more may begin."""
        while len(self._windows) >= MOST_KINDS:
            oldest = next(iter(self._windows))
            if now < self._windows[oldest].ends_at:
                return False
            del self._windows[oldest]
        return True

    def ended(self, now: float) -> list[tuple[L, int]]:
        """Delete the windows that ended with lines left out; return the last line and the number
        of each.
        """
        over = {k: w for k, w in self._windows.items() if w.left_out and now >= w.ends_at}
        for kind in over:
            del self._windows[kind]
        return [(w.last, w.left_out) for w in over.values() if w.last is not None]

    def next_end(self) -> float | None:
        """Return when the next window with lines left out ends; None if there is none."""
        return min((w.ends_at for w in self._windows.values() if w.left_out), default=None)

    def clear(self) -> None:
        """Delete all windows."""
        self._windows.clear()


class LimitedLog:
    """Writes one warning per ``interval_s`` about the same subject. Thread-safe."""

    def __init__(self, log: logging.Logger, interval_s: float) -> None:
        self._log = log
        self._limiter: Limiter[None] = Limiter(1, interval_s)
        self._lock = forks.lock()

    def warning(
        self,
        key: Hashable,
        now: float,
        message: str,
        *args: object,
        error: BaseException | None = None,
        extra: Callable[[], Mapping[str, object]] | None = None,
    ) -> None:
        """Log a warning unless one with the same ``key`` was logged within the interval.

        ``now`` is monotonic, in seconds. The line says how many were left out before it.
        With ``error`` its traceback follows; ``extra`` gives fields of the line, if there is one.
        """
        with self._lock:
            left_out = self._limiter.admit(key, now)
        if left_out is None:
            return
        if left_out:
            message += " (and %d more like this)"
            args = (*args, left_out)
        self._log.warning(message, *args, exc_info=error, extra=extra() if extra else None)
