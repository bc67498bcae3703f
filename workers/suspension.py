"""What a worker's log says of RQ's suspension: a line when it begins, and one when it ends."""

from __future__ import annotations

import logging

from clusterer.jobs import Suspension, resume_command
from clusterer.settings import Settings

LOOK_S = 1.0
"""How often a suspended worker looks whether the suspension has ended."""

logger = logging.getLogger(__name__)


class SuspensionLog:
    """Remembers whether RQ was suspended at the last look."""

    def __init__(self) -> None:
        self._suspended = False

    def note(self, worker: str, suspension: Suspension | None, settings: Settings) -> None:
        """Log what has changed since the last call, if anything has."""
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
