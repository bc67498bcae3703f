"""A source of measurements, which may fail."""

from __future__ import annotations

import logging
from collections.abc import Callable

log = logging.getLogger(__name__)


class Reading:
    """Asks a source for numbers from 0 to ``most``; says when it begins and ends to fail."""

    def __init__(self, what: str, algorithm: str, source: Callable[[], float], most: float) -> None:
        self._what = what
        self._algorithm = algorithm
        self._source = source
        self._most = most
        self._failing = False

    def read(self) -> float | None:
        """Return what the source says, None if it cannot or makes no sense. Never raises."""
        try:
            value = self._checked()
        except Exception as error:  # noqa: BLE001  the source is anybody's; it is logged
            self._note_failure(error)
            return None
        if self._failing:
            self._failing = False
            log.info("ratelimit: %s can be measured again", self._what)
        return value

    def _checked(self) -> float:
        value = self._source()
        if not 0 <= value <= self._most:
            raise ValueError(f"{value!r} is not from 0 to {self._most:g}")
        return value

    def _note_failure(self, error: Exception) -> None:
        if not self._failing:
            self._failing = True
            log.warning(
                "ratelimit: %s cannot be measured, %s refuses nothing until it can: %s",
                self._what,
                self._algorithm,
                str(error) or type(error).__name__,
            )
