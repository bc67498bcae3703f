"""Log lines at a limited rate: a flood of bad packets must not become a flood of lines."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Mapping

from clusterer import forks

_MOST_KEYS = 1_000
"""Different things remembered; those that come on top of them share one line per interval."""

_OTHERS = object()


class LimitedLog:
    """Says the same thing about the same subject at most once per ``interval_s``. Thread-safe."""

    def __init__(self, log: logging.Logger, interval_s: float) -> None:
        self._log = log
        self._interval_s = interval_s
        self._lock = forks.lock()
        self._said: dict[Hashable, tuple[float, int]] = {}
        """When it was said last, and how often it was left out since; the oldest comes first."""

    def warning(
        self,
        key: Hashable,
        now: float,
        message: str,
        *args: object,
        error: Exception | None = None,
        extra: Callable[[], Mapping[str, object]] | None = None,
    ) -> None:
        """Log a warning unless one with the same ``key`` was logged lately.

        ``now`` is monotonic, in seconds. A line says how many were left out before it.
        With ``error`` its traceback follows; ``extra`` gives fields of the line, if there is one.
        """
        with self._lock:
            suppressed = self._suppressed(key, now)
        if suppressed is None:
            return
        if suppressed:
            message += " (and %d more like this)"
            args = (*args, suppressed)
        self._log.warning(message, *args, exc_info=error, extra=extra() if extra else None)

    def _suppressed(self, key: Hashable, now: float) -> int | None:
        """Return how many lines were left out before the one to log now, None for no line."""
        if key not in self._said and not self._has_room(now):
            key = _OTHERS
        last, suppressed = self._said.get(key, (now - self._interval_s, 0))
        if now - last < self._interval_s:
            self._said[key] = last, suppressed + 1
            return None
        self._said.pop(key, None)
        self._said[key] = now, 0
        return suppressed

    def _has_room(self, now: float) -> bool:
        """Forget what may be said again anyway, as far as the place is needed."""
        while len(self._said) >= _MOST_KEYS:
            oldest = next(iter(self._said))
            if now - self._said[oldest][0] < self._interval_s:
                return False
            del self._said[oldest]
        return True
