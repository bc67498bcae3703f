"""The handler of all processes: writes lines, and sums up those of a flood."""

from __future__ import annotations

import logging
import threading
from collections.abc import Hashable
from copy import copy
from time import monotonic
from typing import TextIO

from clusterer import forks
from clusterer.logs.repeats import Repeats
from clusterer.streams import LogStream

_EVER = float("inf")


class SummarisingHandler(logging.StreamHandler[TextIO]):
    """Says at most so many lines of one kind at a time, then how many more there were.

    A kind is a logger, a level and a message before its arguments are put in. Lines for
    debugging are all said.
    """

    def __init__(self, stream: TextIO, repeats: Repeats | None = None) -> None:
        super().__init__(stream)
        self._repeats = repeats or Repeats()
        self._last: dict[Hashable, logging.LogRecord] = {}
        self._timer: threading.Timer | None = None
        forks.renew_in_child(self)

    def renew_in_child(self) -> None:
        """Leave to the parent the lines that it left out, and the timer that sums them up."""
        self._repeats.clear()
        self._last = {}
        self._timer = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line, or count it. The caller holds the handler's lock."""
        if record.levelno > logging.DEBUG:
            kind = record.name, record.levelno, record.msg
            if not self._repeats.admits(kind, monotonic()):
                self._last[kind] = record
                self._wait()
                return
        super().emit(record)

    def close(self) -> None:
        """Say what was left out and what was lost, and end."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        with self.lock or threading.RLock():
            self._sum_up(_EVER)
        if isinstance(self.stream, LogStream):
            self.stream.confess()
        super().close()

    def _wait(self) -> None:
        end = self._repeats.next_end()
        if self._timer is None and end is not None:
            self._timer = threading.Timer(max(0.0, end - monotonic()), self._window_ended)
            self._timer.daemon = True
            self._timer.start()

    def _window_ended(self) -> None:
        with self.lock or threading.RLock():
            self._timer = None
            self._sum_up(monotonic())
            self._wait()

    def _sum_up(self, now: float) -> None:
        for kind, count in self._repeats.over(now):
            record = copy(self._last.pop(kind))
            record.msg = f"{record.getMessage()} (the last of {count} more like it)"
            record.args = None
            record.exc_info = record.exc_text = None
            record.repeated = count
            super().emit(record)
