"""Values in Redis that cannot be used: keys of a wrong type, and what the other checks met."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from clusterer.services.context import Context
from clusterer.services.doctor.finding import Finding, error, ok
from clusterer.store import translated
from clusterer.store.audit import PAGE, AuditStore
from clusterer.store.badvalues import BadValue, wrong_keys
from clusterer.store.dirty import DirtyNodes
from clusterer.store.paths import PathStore
from clusterer.store.probers import ProberStore
from clusterer.store.receipts import Receipts
from clusterer.store.suspicions import SuspicionStore

CHECK = "redis values"

_NAMED = 20
"""Values that are named, one a line."""


def check(context: Context, problems: list[BadValue]) -> Iterator[Finding]:
    """Read what no other check reads; tell of ``problems``, which collects all that is reported.

    Raises `StateUnavailable`.
    """
    with translated(context.settings, "look at the types of keys"):
        problems += wrong_keys(context.redis)
    Receipts(context.settings, context.redis).watches()
    clusters = context.nodes.clusters()
    DirtyNodes(context.settings, context.redis).find(clusters)
    paths = PathStore(context.settings, context.redis)
    paths.all_records(list(paths.counters()))
    suspicions = SuspicionStore(context.settings, context.redis)
    suspicions.all(clusters)
    suspicions.confirmations(clusters)
    probers = ProberStore(context.settings, context.redis)
    for key in clusters:
        probers.present(key)
    audit = AuditStore(context.settings, context.redis)
    for _, _event in zip(
        range(PAGE), audit.newest_first(audit.ends(audit.clusters())), strict=False
    ):
        pass  # what cannot be used is reported
    yield from _told(problems)


def _told(problems: Iterable[BadValue]) -> Iterator[Finding]:
    distinct = list(dict.fromkeys(problems))
    for problem in distinct[:_NAMED]:
        yield error(CHECK, problem.described, problem.remedy)
    if len(distinct) > _NAMED:
        yield error(CHECK, f"{len(distinct) - _NAMED} more", "correct these first")
    if not distinct:
        yield ok(CHECK, "none is wrong")
