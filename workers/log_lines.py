"""Log lines of a worker about junk jobs and RQ's suspension: one line per change or minute."""

from __future__ import annotations

import logging

from clusterer.jobs import Suspension, keys, resume_command
from clusterer.settings import Settings

INTERVAL_S = 60.0
"""Least time between two lines about junk jobs."""

logger = logging.getLogger(__name__)


class JunkLog:
    """Counts the junk jobs of a queue between lines; times are monotonic, in seconds."""

    def __init__(self, queue: str) -> None:
        self._queue = queue
        self._count, self._latest = 0, ""
        self._next_at = float("-inf")

    def note(self, count: int, latest: str, now: float) -> None:
        """Add ``count`` junk jobs, which may be 0, and log a line if one is due.

        ``latest`` is the id of the latest junk job, and why it is junk.
        """
        if count:
            self._count += count
            self._latest = latest
        if self._count and now >= self._next_at:
            self.flush()
            self._next_at = now + INTERVAL_S

    def flush(self) -> None:
        """Log the junk jobs since the last line, if any: the worker ends."""
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


class SuspensionLog:
    """Logs when a suspension begins and when it ends."""

    def __init__(self) -> None:
        self._suspended = False

    def note(self, worker: str, suspension: Suspension | None, settings: Settings) -> None:
        """Log the change since the last call, if there is one."""
        if suspension is not None and not self._suspended:
            left_s = suspension.left_s
            logger.warning(
                "worker %s: RQ is suspended%s, no jobs are started; run `%s`",
                worker,
                "" if left_s is None else f" for {left_s:.0f} s more",
                resume_command(settings),
            )
        if suspension is None and self._suspended:
            logger.warning("worker %s: RQ is resumed, jobs are started again", worker)
        self._suspended = suspension is not None
