"""The check of the values in Redis: keys of a wrong type, and bad values that any check reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from clusterer.services.context import Context
from clusterer.services.doctor.finding import Finding, error, ok
from clusterer.store import translated
from clusterer.store.audit import PAGE, AuditStore
from clusterer.store.badvalues import BadValue, wrong_keys
from clusterer.store.dirty import DirtyNodes
from clusterer.store.receipts import Receipts

CHECK = "redis values"

_NAMED = 20
"""Most bad values with a finding of their own."""


def check(context: Context, problems: list[BadValue]) -> Iterator[Finding]:
    """Read the keys that no other check reads; yield a finding for each of ``problems``.

    ``problems`` collects the bad values of all checks. Raises `StateUnavailable`.
    """
    with translated(context.settings, "look at the types of keys"):
        problems += wrong_keys(context.redis)
    Receipts(context.settings, context.redis).watches()
    DirtyNodes(context.settings, context.redis).find(context.nodes.clusters())
    audit = AuditStore(context.settings, context.redis)
    for _, _event in zip(
        range(PAGE), audit.newest_first(audit.ends(audit.clusters())), strict=False
    ):
        pass  # the store adds events that it cannot read to the problems
    yield from _told(problems)


def _told(problems: Iterable[BadValue]) -> Iterator[Finding]:
    distinct = list(dict.fromkeys(problems))
    for problem in distinct[:_NAMED]:
        yield error(CHECK, problem.described, problem.remedy)
    if len(distinct) > _NAMED:
        more = f"{len(distinct) - _NAMED} more wrong values"
        yield error(CHECK, more, "first correct the values named above")
    if not distinct:
        yield ok(CHECK, "no wrong value")
