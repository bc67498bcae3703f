"""The format of the keys and log entries that this program writes to Redis."""

from __future__ import annotations

import redis

from clusterer.errors import NewerFormat
from clusterer.settings import Settings
from clusterer.store import keys
from clusterer.store.client import translated
from clusterer.store.migration import migrate

FORMAT = 2
"""Grows with each change after which an older program would misread the keys in Redis."""


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
            found = migrate(client, FORMAT)
    if found is not None and is_newer(found):
        raise NewerFormat(newer_text(found))


def newer_text(found: bytes) -> str:
    """Return the message about a newer format in Redis."""
    return (
        f"{keys.FORMAT} is {found[:9].decode()}, and this program writes format {FORMAT}: "
        "this process writes nothing; upgrade clusterer on this host"
    )
