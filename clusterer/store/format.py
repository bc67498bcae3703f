"""The format of the keys and log entries in Redis, and the renaming of keys of older formats."""

from __future__ import annotations

import logging
from typing import Final

import redis

from clusterer.errors import NewerFormat, OlderFormat
from clusterer.settings import Settings
from clusterer.store import keys
from clusterer.store.badvalues import blame, text
from clusterer.store.client import translated
from clusterer.store.key_types import expected_type
from clusterer.store.scripts import script
from clusterer.store.watches import LISTENING_MS

log = logging.getLogger(__name__)

FORMAT = 2
"""Grows with each change after which an older program would misread the keys in Redis."""

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


def format_found(client: redis.Redis) -> bytes | None:
    """Return the format in Redis; None without one, empty if the key is no string."""
    try:
        found = client.get(keys.FORMAT)
    except redis.ResponseError as error:
        if "WRONGTYPE" not in str(error):
            raise
        return b""
    return found if isinstance(found, bytes) else None


def is_newer(found: bytes | None) -> bool:
    """Whether ``found`` is a format that this program does not know."""
    return found is not None and found.isdigit() and int(found[:9]) > FORMAT


def is_older(found: bytes | None) -> bool:
    """Whether ``found`` is a format that an older program wrote."""
    return found is not None and found.isdigit() and 0 < int(found[:9]) < FORMAT


def require_format(settings: Settings, client: redis.Redis) -> None:
    """Write the format to Redis, and rename the keys of an older format.

    Each process calls `require_format` before its first write. Raises `NewerFormat` if a newer
    program wrote the keys in Redis, `OlderFormat` if an older process still uses them, and
    `StateUnavailable`. A format that is not a number stays as it is: doctor names it.
    """
    with translated(settings, "read the format of the keys"):
        found = format_found(client)
        if found != b"%d" % FORMAT and not is_newer(found):
            found = migrate(client)
    if found is not None and is_newer(found):
        raise NewerFormat(newer_text(found))


def newer_text(found: bytes) -> str:
    """Return the message about a newer format in Redis."""
    return (
        f"{keys.FORMAT} is {found[:9].decode()}, and this program writes format {FORMAT}: "
        "this process writes nothing; upgrade clusterer on this host"
    )


def migrate(client: redis.Redis) -> bytes | None:
    """Rename the keys of older formats; return a newer format that Redis has.

    `migrate` renames all keys in one step; several processes may call it at once. It renames and
    reports a key of a wrong type. A key whose new name exists keeps its old name. Raises
    `OlderFormat` if an older process still uses the keys.
    """
    kinds = (
        part
        for old, new in RENAMED.items()
        for part in (old, new, expected_type(f"clusterer:{new}:"))
    )
    state, *rest = script("migrate")(client, [keys.FORMAT], FORMAT, LISTENING_MS, _NAMED, *kinds)
    if state == b"newer":
        return bytes(rest[0])
    if state == b"in use":
        raise OlderFormat(_in_use(*rest))
    if state == b"renamed":
        _report(client, *rest)
    return None


def _in_use(key: bytes, use: bytes | int) -> str:
    name = text(key)
    found = (
        f"has a heartbeat of {use / 1000:.1f} s ago"
        if isinstance(use, int)
        else f"is held by the worker {use.decode('utf-8', 'replace')}"
    )
    return (
        f"keys in Redis have an older format, and a process of an older version uses them: {name} "
        f"{found}; stop all processes of the older version"
    )


def _report(client: redis.Redis, renamed: int, wrong: list[bytes], kept: list[bytes]) -> None:
    if renamed:
        log.info("Redis: keys renamed to format %d: %d keys", FORMAT, renamed)
    blame(client, [text(key) for key in wrong])
    for key in kept:
        _, kind, rest = text(key).split(":", 2)
        log.warning(
            "Redis: key clusterer:%s:%s not renamed: clusterer:%s:%s exists; "
            "delete the key that is out of date",
            *(kind, rest, RENAMED[kind], rest),
        )
