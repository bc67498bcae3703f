"""Log lines of a worker about junk jobs and RQ's suspension: one line per change or minute."""

from __future__ import annotations

import logging

from clusterer.jobs import Suspension, keys, resume_command
from clusterer.settings import Settings

INTERVAL_S = 60.0
"""Least time between two lines about junk jobs."""

logger = logging.getLogger(__name__)


class JunkLog:
    """Logs the junk jobs of a queue; times are monotonic, in seconds."""

    def __init__(self, queue: str) -> None:
        self._queue = queue
        self._logged = 0
        self._next_at = float("-inf")

    def note(self, total: int, latest: str, now: float) -> None:
        """Log the junk jobs since the last line, if a line is due at ``now``.

        ``total``: junk jobs so far; ``latest``: id of the latest, and why it is junk.
        """
        if total == self._logged or now < self._next_at:
            return
        logger.warning(
            "queue %s: %d junk jobs moved to %s, not run; the latest: %s",
            self._queue,
            total - self._logged,
            keys.junk(self._queue),
            latest,
        )
        self._logged, self._next_at = total, now + INTERVAL_S


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
