"""Renames the keys of older formats, at the first start of a newer version."""

from __future__ import annotations

import logging
from typing import Final

import redis

from clusterer.errors import OlderFormat
from clusterer.store import keys
from clusterer.store.badvalues import blame
from clusterer.store.key_types import expected_type
from clusterer.store.scripts import script
from clusterer.store.watches import LISTENING_MS

log = logging.getLogger(__name__)

RENAMED: Final = {
    "cursor": "committed",
    "position": "committed-count",
    "fence": "closing",
    "wake": "enqueued",
    "doorbell": "ring",
    "heard": "last-seen",
    "silenced": "muted",
    "tail": "capture",
}
"""Kinds of keys, ``clusterer:KIND:…``: name in format 1 → name in format 2.

In ``clusterer:modules:R`` the field ``flushed_at`` has become ``heartbeat``.
"""

_NAMED = 20
"""Most keys that the log names, of a wrong type or not renamed."""


def migrate(client: redis.Redis, wanted: int) -> bytes | None:
    """Rename the keys of formats before ``wanted``; return a newer format that Redis has.

    `migrate` renames all keys in one step; several processes may call it at once. It renames and
    reports a key of a wrong type. A key whose new name exists keeps its old name. Raises
    `OlderFormat` if an older process still uses the keys.
    """
    kinds = (
        part
        for old, new in RENAMED.items()
        for part in (old, new, expected_type(f"clusterer:{new}:"))
    )
    state, *rest = script("migrate")(client, [keys.FORMAT], wanted, LISTENING_MS, _NAMED, *kinds)
    if state == b"newer":
        return bytes(rest[0])
    if state == b"in use":
        raise OlderFormat(_in_use(*rest))
    if state == b"renamed":
        _report(client, wanted, *rest)
    return None


def _in_use(key: bytes, use: bytes | int) -> str:
    name = key.decode("utf-8", "replace")
    found = (
        f"has a heartbeat of {use / 1000:.1f} s ago"
        if isinstance(use, int)
        else f"is held by the worker {use.decode('utf-8', 'replace')}"
    )
    return (
        f"keys in Redis have an older format, and a process of an older version uses them: {name} "
        f"{found}; stop all processes of the older version"
    )


def _report(
    client: redis.Redis, wanted: int, renamed: int, wrong: list[bytes], kept: list[bytes]
) -> None:
    if renamed:
        log.info("Redis: keys renamed to format %d: %d keys", wanted, renamed)
    blame(client, [key.decode("utf-8", "replace") for key in wrong])
    for key in kept:
        _, kind, rest = key.decode("utf-8", "replace").split(":", 2)
        log.warning(
            "Redis: key clusterer:%s:%s not renamed: clusterer:%s:%s exists; "
            "delete the key that is out of date",
            *(kind, rest, RENAMED[kind], rest),
        )
