"""The check of the values in Redis: keys of a wrong type, and bad values that any check reads."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from clusterer.services.context import Context
from clusterer.services.doctor.finding import Finding, error, ok
from clusterer.store import ClusterKey, translated
from clusterer.store.badvalues import BadValue, wrong_keys
from clusterer.store.dirty import DirtyNodes
from clusterer.store.event_streams import PAGE, AuditStore, PathEvents
from clusterer.store.paths import PathStore
from clusterer.store.probers import ProberStore
from clusterer.store.receipts import Receipts
from clusterer.store.suspicions import SuspicionStore

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
    clusters = context.nodes.clusters()
    DirtyNodes(context.settings, context.redis).find(clusters)
    _read_paths(context, clusters)
    for kind in (AuditStore, PathEvents):
        events = kind(context.settings, context.redis)
        newest = events.newest_first(events.ends(events.clusters()))
        deque(islice(newest, PAGE), maxlen=0)  # what cannot be used is reported
    yield from _told(problems)


def _read_paths(context: Context, clusters: Sequence[ClusterKey]) -> None:
    paths = PathStore(context.settings, context.redis)
    paths.all_records(list(paths.counters()))
    suspicions = SuspicionStore(context.settings, context.redis)
    suspicions.all(clusters)
    suspicions.confirmations(clusters)
    probers = ProberStore(context.settings, context.redis)
    for key in clusters:
        probers.present(key)


def _told(problems: Iterable[BadValue]) -> Iterator[Finding]:
    distinct = list(dict.fromkeys(problems))
    for problem in distinct[:_NAMED]:
        yield error(CHECK, problem.described, problem.remedy)
    if len(distinct) > _NAMED:
        more = f"{len(distinct) - _NAMED} more wrong values"
        yield error(CHECK, more, "first correct the values named above")
    if not distinct:
        yield ok(CHECK, "no wrong value")
