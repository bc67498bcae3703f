"""The checks of the keys in Redis: format, types, and the bad values that any check reads."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice

from clusterer.services.context import Context
from clusterer.services.doctor.finding import Finding, bounded, error, ok, warn
from clusterer.store import keys, translated
from clusterer.store.audit import PAGE, AuditStore, PathEvents
from clusterer.store.badvalues import BadValue, text, wrong_keys
from clusterer.store.dirty import DirtyNodes
from clusterer.store.format import FORMAT, format_found, is_newer, is_older, newer_text
from clusterer.store.receipts import Receipts

FORMAT_CHECK = "redis format"
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
    context.paths.all_records(list(context.paths.counters()))
    context.suspicions.all(clusters)
    context.suspicions.confirmations(clusters)
    for key in clusters:
        context.probers.present(key)
    for kind in (AuditStore, PathEvents):
        events = kind(context.settings, context.redis)
        newest = islice(events.latest(events.clusters()), PAGE)
        deque(newest, maxlen=0)  # what cannot be used is reported
    found = [error(CHECK, each.described, each.remedy) for each in dict.fromkeys(problems)]
    yield from bounded(found, _NAMED, "first correct the values named above")
    if not found:
        yield ok(CHECK, "no wrong value")


def check_format(context: Context) -> Iterator[Finding]:
    """Check the format of the keys. Raises `StateUnavailable`."""
    with translated(context.settings, "read the format of the keys"):
        found = format_found(context.redis)
    if found is None:
        yield ok(FORMAT_CHECK, f"{keys.FORMAT} is not set yet")
    elif is_newer(found):
        yield error(FORMAT_CHECK, newer_text(found), "upgrade clusterer here")
    elif is_older(found):
        yield warn(
            FORMAT_CHECK,
            f"{keys.FORMAT} is {text(found)}, and this program writes format {FORMAT}",
            "stop all processes of the older version: the first new process renames the keys",
        )
    elif found != b"%d" % FORMAT:
        yield error(
            FORMAT_CHECK,
            f"{keys.FORMAT} is {text(found)!r:.40}, not a format that a program wrote",
            f"redis-cli DEL {keys.FORMAT}, unless a newer clusterer uses this Redis",
        )
    else:
        yield ok(FORMAT_CHECK, f"keys have format {FORMAT}")
