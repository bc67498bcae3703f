"""Setting up the logging of a process, once, at its start."""

from __future__ import annotations

import logging
import sys

from clusterer.logs.formats import HumanFormatter, JsonFormatter
from clusterer.logs.handler import SummarisingHandler
from clusterer.settings import LOG_AUTO, Settings

JSON = "json"


def configure(
    settings: Settings, process: str, *, level: int = logging.INFO, prefix: str = ""
) -> None:
    """Log to stderr as ``log_format`` and ``log_level`` say.

    ``process`` is what this process is called in JSON lines, ``level`` what is logged with
    log_level auto, ``prefix`` what stands before each line for people.
    """
    if settings.log_level != LOG_AUTO:
        level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    handler = SummarisingHandler(sys.stderr)
    as_json = settings.log_format == JSON
    handler.setFormatter(JsonFormatter(process) if as_json else HumanFormatter(prefix))
    logging.basicConfig(level=level, handlers=[handler], force=True)
