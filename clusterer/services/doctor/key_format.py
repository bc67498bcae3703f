"""The check of the format of the keys in Redis: ours, an older one or a newer one."""

from __future__ import annotations

from collections.abc import Iterator

from clusterer.services.context import Context
from clusterer.services.doctor.finding import Finding, error, ok, warn
from clusterer.store import keys
from clusterer.store.client import translated
from clusterer.store.encoding import as_text
from clusterer.store.format import FORMAT, format_found, is_newer, is_older, newer_text

CHECK = "redis format"


def check(context: Context) -> Iterator[Finding]:
    """Check the format of the keys. Raises `StateUnavailable`."""
    with translated(context.settings, f"read {keys.FORMAT}"):
        found = format_found(context.redis)
    yield _judged(found)


def _judged(found: bytes | None) -> Finding:
    if found is None:
        return ok(CHECK, f"{keys.FORMAT} is not set yet")
    if is_newer(found):
        return error(CHECK, newer_text(found), "upgrade clusterer here")
    if is_older(found):
        return warn(
            CHECK,
            f"{keys.FORMAT} is {as_text(found)}, and this program writes format {FORMAT}",
            "stop all processes of the older version: the first new process renames the keys",
        )
    if found != b"%d" % FORMAT:
        return error(
            CHECK,
            f"{keys.FORMAT} is {as_text(found)!r:.40}, not a format that a program wrote",
            f"redis-cli DEL {keys.FORMAT}, unless a newer clusterer uses this Redis",
        )
    return ok(CHECK, f"keys have format {FORMAT}")
