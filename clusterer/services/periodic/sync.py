"""The sync job: writes changed states to the table (persistent mode)."""

from __future__ import annotations

import logging
from collections.abc import Callable

from clusterer.errors import ProvisioningError
from clusterer.services.context import Context
from clusterer.services.table import write_back
from clusterer.services.table.write_back import SyncReport
from clusterer.store.format import require_format

log = logging.getLogger(__name__)

BUDGET_S = 10.0
"""Longest time for which a job starts another batch: RQ ends the job after 30 s."""


def run(context: Context, stopped: Callable[[], bool] = lambda: False) -> SyncReport:
    """Write changed states to the table in persistent mode; otherwise do nothing.

    Safe to run twice or twice at once. While the database is away all nodes stay marked for a later
    run, and the report has the error. Once ``stopped`` returns True, for a worker that has to end,
    the job starts no further batch. Raises `StateUnavailable`.
    """
    if not context.settings.persistent_mode:
        return SyncReport()
    require_format(context.settings, context.redis)
    try:
        return write_back.flush(context, budget_s=BUDGET_S, stopped=stopped)
    except ProvisioningError as error:
        if not context.database.away:
            log.warning("sync: changes not written to the table: %s; retrying", error)
        context.database.away = True
        return SyncReport(error=str(error))
