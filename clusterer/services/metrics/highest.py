"""Counters that a worker may take back for a moment, as Prometheus wants them: never falling."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from clusterer.runtime import forks


class Highest:
    """The highest values seen. Safe to share between threads.

    When a connection breaks, packets that were skipped or lost behind it are offered again, and
    are not counted until they are skipped or lost anew. Prometheus would take that for a counter
    that has begun at 0 again, and all of it for an increase.
    """

    def __init__(self) -> None:
        self._values: Mapping[Hashable, int] = {}
        self._lock = forks.lock()

    def of(self, values: Mapping[Hashable, int]) -> Mapping[Hashable, int]:
        """Return each value, or the highest that it ever was; forget those that are gone."""
        with self._lock:
            before = self._values
            self._values = {name: max(now, before.get(name, now)) for name, now in values.items()}
            return self._values
