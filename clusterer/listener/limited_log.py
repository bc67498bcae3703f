"""Log lines at a limited rate: a flood of bad packets must not become a flood of lines."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping

_MOST_KEYS = 1_000
"""Different things remembered; past it, everything is forgotten and may be said again."""


class LimitedLog:
    """Says the same thing about the same subject at most once per ``interval_s``."""

    def __init__(self, log: logging.Logger, interval_s: float) -> None:
        self._log = log
        self._interval_s = interval_s
        self._said: dict[Hashable, tuple[float, int]] = {}

    def warning(
        self,
        key: Hashable,
        now: float,
        message: str,
        *args: object,
        error: Exception | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        """Log a warning unless one with the same ``key`` was logged lately.

        ``now`` is monotonic, in seconds. A line says how many were left out before it.
        With ``error`` its traceback follows; ``extra`` are fields of the line.
        """
        last, suppressed = self._said.get(key, (now - self._interval_s, 0))
        if now - last < self._interval_s:
            self._said[key] = last, suppressed + 1
            return
        if len(self._said) >= _MOST_KEYS:
            self._said.clear()
        self._said[key] = now, 0
        if suppressed:
            message += " (and %d more like this)"
            args = (*args, suppressed)
        self._log.warning(message, *args, exc_info=error, extra=extra)
