"""What a worker's log says of junk jobs: one line a minute at most, with their number."""

from __future__ import annotations

import logging

from clusterer.jobs import keys

INTERVAL_S = 60.0

logger = logging.getLogger(__name__)


class JunkLog:
    """Counts the junk jobs of a queue between lines; times are monotonic, in seconds."""

    def __init__(self, queue: str) -> None:
        self._queue = queue
        self._count, self._latest = 0, ""
        self._next_at = float("-inf")

    def note(self, count: int, latest: str, now: float) -> None:
        """Add ``count`` junk jobs, which may be 0, and log a line if there is one to log by now.

        ``latest`` is the id of the latest, and why it is junk.
        """
        if count:
            self._count += count
            self._latest = latest
        if self._count and now >= self._next_at:
            self.flush()
            self._next_at = now + INTERVAL_S

    def flush(self) -> None:
        """Log a line now if there is anything to say: nothing more will come."""
        if not self._count:
            return
        logger.warning(
            "queue %s: %d junk jobs moved to %s, not run; the latest: %s",
            self._queue,
            self._count,
            keys.junk(self._queue),
            self._latest,
        )
        self._count = 0
