"""Rounds of the loops that run for ever: a failed round is logged and counted, the loop continues.

One value that cannot be used, or one bug, must not end a thread that everything else needs. Every
thread, task and loop without an end does its rounds inside `Rounds.guard`.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from time import monotonic
from types import TracebackType
from typing import Self

from clusterer.errors import ClustererError
from clusterer.runtime.logs import LimitedLog

log = logging.getLogger(__name__)

INTERVAL_S = 60.0
"""Between two log lines about failures of the same kind in the same loop."""

_limited = LimitedLog(log, INTERVAL_S)
_lock = threading.Lock()
_failures: Counter[str] = Counter()


def failures() -> Mapping[str, int]:
    """Return how many rounds have failed in this process, by the loop's name.

    Loops that exist and never failed are there with 0.
    """
    with _lock:
        return dict(_failures)


class Rounds:
    """The rounds of one loop; ``loop`` is its name in log lines and in metrics.

    Safe to share between threads. The loop itself paces its rounds, failed ones too.
    """

    __slots__ = ("_loop",)

    def __init__(self, loop: str) -> None:
        self._loop = loop
        with _lock:
            _failures[loop] += 0

    def guard(self) -> Self:
        """Return the context manager for one round: an `Exception` inside is noted and ends there.

        Requests to end (KeyboardInterrupt, SystemExit, a cancelled task) pass.
        """
        return self

    def failed(self, error: Exception, about: Iterable[object] = ()) -> None:
        """Count a failed round and, at a limited rate, log it.

        ``about`` tells failures apart that are to be logged each. An error of ours says what is
        wrong; any other one is logged with its traceback.
        """
        with _lock:
            _failures[self._loop] += 1
        _limited.warning(
            (self._loop, type(error), *about),
            monotonic(),
            "%s: a round failed: %s; continuing",
            self._loop,
            error if isinstance(error, ClustererError) else f"{type(error).__name__}: {error}",
            error=None if isinstance(error, ClustererError) else error,
        )

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if not isinstance(error, Exception):
            return False
        self.failed(error)
        return True
