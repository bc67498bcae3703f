"""Loads the table into a Redis without nodes: a new Redis, or one that lost its data."""

from __future__ import annotations

import logging
from time import monotonic

from clusterer.errors import ClustererError, StateUnavailable
from clusterer.runtime.logs import LimitedLog
from clusterer.services.context import Context
from clusterer.store.reloads import ReloadStore

log = logging.getLogger(__name__)

AGAIN_S = 10
"""Pause before another attempt after the table was not loaded."""

_limited = LimitedLog(log, 300.0)


def run(context: Context) -> bool:
    """Load the table if Redis has no node and no trace of a reload; return whether it was loaded.

    With ``redis_url`` and without ``db_url`` `run` does nothing: the SQLite file of the data
    directory may belong to another Redis. Safe to run in several processes. Raises
    `StateUnavailable`.
    """
    settings = context.settings
    if settings.redis_url and not settings.db_url:
        return False
    if not ReloadStore(settings, context.redis).claim_restore(AGAIN_S):
        return False
    from clusterer.services.table import (  # noqa: PLC0415 - 0.2 s and 15 MB that are rarely needed
        reload,
    )

    try:
        report = reload.run(context, by="restore")
    except StateUnavailable:
        raise
    except ClustererError as error:
        _limited.warning(
            "table", monotonic(), "Redis: no nodes, and the table was not loaded: %s", error
        )
        return False
    log.warning("Redis: had no nodes; loaded %d from %s", report.loaded, report.database)
    return True
