"""Deletes void path records that no prober deletes.

These are the records of hosts without a prober, and records whose counter Redis has lost.
"""

from __future__ import annotations

from clusterer.membership.paths import is_void
from clusterer.services.context import Context
from clusterer.store.destinations import node_of

EVERY_S = 5.0
"""Between two looks of one maintenance worker."""


def run(context: Context) -> int:
    """Delete the records that are void, if it is time; return how many."""
    if not context.intervals.due("void paths", EVERY_S):
        return 0
    return clear(context)


def clear(context: Context) -> int:
    """Delete the records that are void; return how many there were."""
    senders = sorted({*context.paths.counters(), *context.paths.scan()})
    if not senders:
        return 0
    found = context.paths.all_records(senders)
    context.directory.refresh()  # after the records: none is of a later epoch than its node
    views = context.directory.snapshot
    deleted = 0
    for sender, records in found.items():
        void = {
            field: path
            for field, path in records.items()
            if is_void(path, node_of(field, views), records.now_ms)
        }
        if void:
            context.paths.delete(sender, void)
            deleted += len(void)
    return deleted
