"""The logging of a process, set up once, at its start."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterable
from types import TracebackType

from clusterer.runtime import streams
from clusterer.runtime.logs.formats import HumanFormatter, JsonFormatter
from clusterer.runtime.logs.handler import SummarisingHandler
from clusterer.settings import LOG_AUTO, Settings

log = logging.getLogger(__name__)

JSON = "json"


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
