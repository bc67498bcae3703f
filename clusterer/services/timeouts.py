"""Module timeouts: who was silent for too long is silenced, and up again later."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from clusterer.services.context import Context
from clusterer.store.receipts import Receipts
from clusterer.store.watches import Verdict, Watch

log = logging.getLogger(__name__)

_SHOWN = 10
"""machine_ids named in one log line."""


def run(context: Context) -> list[Verdict]:
    """Do all verdicts that are due, for every instance and registration; returns them.

    Safe to run at the same time in several processes: each transition happens, and is announced
    to its instance, exactly once. Raises `StateUnavailable`.
    """
    receipts = Receipts(context.settings, context.redis)
    done: list[Verdict] = []
    watches: Sequence[Watch] = receipts.watches()
    while watches:
        verdicts = receipts.judge(watches)
        for verdict in verdicts:
            _report(verdict)
        done += verdicts
        # More may be due where something was: one call judges a bounded number of nodes.
        watches = [verdict.watch for verdict in verdicts]
    return done


def _report(verdict: Verdict) -> None:
    watch = verdict.watch
    where = f"module {watch.token} of machine {watch.receiver}, cluster {watch.cluster_id}"
    if verdict.silenced:
        log.warning(
            "%s: silent for more than %g s, silenced for %g s: machine %s",
            where,
            watch.timeout_ms / 1000,
            watch.timeout_ms / 500,
            _listed(verdict.silenced),
        )
    if verdict.released:
        log.info("%s: up again: machine %s", where, _listed(verdict.released))


def _listed(machine_ids: Sequence[int]) -> str:
    more = len(machine_ids) - _SHOWN
    return ", ".join(map(str, machine_ids[:_SHOWN])) + (f" and {more} more" if more > 0 else "")
