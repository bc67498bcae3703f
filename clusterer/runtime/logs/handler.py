"""The log of a process: set up once, at its start; its handler limits the lines of each kind."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterable
from copy import copy
from time import monotonic
from types import TracebackType
from typing import TextIO

from clusterer.runtime import forks, streams
from clusterer.runtime.logs.formats import HumanFormatter, JsonFormatter
from clusterer.runtime.logs.limited import Limiter
from clusterer.settings import LOG_AUTO, Settings

log = logging.getLogger(__name__)

JSON = "json"

WINDOW_S = 10.0
BURST = 20
"""Lines of one kind that are written per window."""

_EVER = float("inf")


class SummarisingHandler(logging.StreamHandler[TextIO]):
    """Writes at most ``burst`` lines of one kind per window, then how many more there were.

    A kind is a logger, a level and a message before its arguments are put in. Lines of level
    debug are not limited.
    """

    def __init__(self, stream: TextIO, burst: int = BURST, window_s: float = WINDOW_S) -> None:
        super().__init__(stream)
        self._limiter: Limiter[logging.LogRecord] = Limiter(burst, window_s)
        self._timer: threading.Timer | None = None
        forks.renew_in_child(self)

    def renew_in_child(self) -> None:
        """Leave to the parent the lines that it left out, and the timer that counts them."""
        self._limiter.clear()
        self._timer = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line, or count it. The caller holds the handler's lock."""
        if record.levelno > logging.DEBUG:
            kind = record.name, record.levelno, record.msg
            left_out = self._limiter.admit(kind, monotonic(), record)
            if left_out is None:
                self._start_timer()
                return
            if left_out:  # the window has ended, and the timer is late
                record = _summary(record, left_out + 1)
        super().emit(record)

    def close(self) -> None:
        """Write what was left out and what was lost, and end."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        with self.lock or threading.RLock():
            self._write_summaries(_EVER)
        if isinstance(self.stream, streams.LogStream):
            self.stream.confess()
        super().close()

    def _start_timer(self) -> None:
        end = self._limiter.next_end()
        if self._timer is None and end is not None:
            self._timer = threading.Timer(max(0.0, end - monotonic()), self._window_ended)
            self._timer.daemon = True
            self._timer.start()

    def _window_ended(self) -> None:
        with self.lock or threading.RLock():
            self._timer = None
            self._write_summaries(monotonic())
            self._start_timer()

    def _write_summaries(self, now: float) -> None:
        for record, count in self._limiter.ended(now):
            super().emit(_summary(record, count))


def _summary(record: logging.LogRecord, count: int) -> logging.LogRecord:
    """Return the line that stands for ``count`` lines, of which ``record`` is the last."""
    summary = copy(record)
    summary.msg = f"{record.getMessage()} (the last of {count} more like it)"
    summary.args = summary.exc_info = summary.exc_text = None
    summary.repeated = count
    return summary


def configure(
    settings: Settings, process: str, *, level: int = logging.INFO, prefix: str = ""
) -> None:
    """Log to stderr as the settings ``log_format`` and ``log_level`` say.

    ``process`` is the name of this process in JSON lines, ``level`` the level for log_level auto,
    ``prefix`` a text before each line for people. A process whose ``level`` is INFO runs until
    stopped: it continues without its log while the log cannot be written.
    """
    is_service = level <= logging.INFO
    if settings.log_level != LOG_AUTO:
        level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    as_json = settings.log_format == JSON
    formatter = JsonFormatter(process) if as_json else HumanFormatter(prefix)
    if is_service:
        streams.serve_on(lambda text: f"{formatter.format(_warning(text))}\n")
    handler = SummarisingHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    if as_json:
        sys.excepthook = _crashed
        threading.excepthook = _thread_crashed


def warn(texts: Iterable[str]) -> None:
    """Log warnings that were found before the log was set up."""
    for text in texts:
        log.warning("%s", text)


def _warning(text: str) -> logging.LogRecord:
    return log.makeRecord(log.name, logging.WARNING, "", 0, text, (), None)


def _crashed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Log a crash as one JSON line."""
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    log.critical("crashed: %s: %s", kind.__name__, error, exc_info=(kind, error, trace))


def _thread_crashed(args: threading.ExceptHookArgs) -> None:
    name = args.thread.name if args.thread else "?"
    info = args.exc_type, args.exc_value or args.exc_type(), args.exc_traceback
    log.critical("thread %s crashed: %s", name, args.exc_value, exc_info=info)
