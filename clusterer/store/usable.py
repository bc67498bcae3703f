"""Finds bad values in the keys of one sender's deliveries."""

from __future__ import annotations

import re
from types import TracebackType
from typing import Any

import redis

from clusterer.endpoint import said
from clusterer.errors import StateUnavailable
from clusterer.settings import Settings
from clusterer.store import keys
from clusterer.store.badvalues import is_bad_data
from clusterer.store.client import translated

_TYPES = (
    (keys.log, b"stream"),
    (keys.counters, b"hash"),
    (keys.committed, b"hash"),
    (keys.committed_count, b"hash"),
    (keys.stats, b"hash"),
    (keys.closing, b"hash"),
    (keys.lease, b"string"),
)
_NUMBERS = frozenset({keys.counters, keys.committed, keys.committed_count, keys.stats})


class SenderUnusable(StateUnavailable):
    """A key of one sender's deliveries has a bad value; other senders are not affected."""

    def __init__(self, sender: int, message: str) -> None:
        super().__init__(message)
        self.sender = sender


def is_about_data(error: BaseException | None) -> bool:
    """Whether an error comes from a value in Redis, and not from the server or the connection."""
    return isinstance(error, ValueError) or is_bad_data(error)


class of_sender(translated):  # noqa: N801 - reads as a word of the `with` statement
    """Turns an error about one sender's values into `SenderUnusable`; others as `translated`."""

    __slots__ = ("_sender",)

    def __init__(self, settings: Settings, what: str, sender: int) -> None:
        super().__init__(settings, what)
        self._sender = sender

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if is_about_data(error):
            text = said(error) if isinstance(error, redis.RedisError) else str(error)
            raise SenderUnusable(self._sender, f"cannot {self._what}: {text}") from error
        super().__exit__(kind, error, trace)


def wrong_keys(client: redis.Redis, sender: int) -> list[str]:
    """Return a description of each fault in the keys of a sender's deliveries."""
    found = []
    for name, wanted in _TYPES:
        key = name(sender)
        kind: Any = client.type(key)
        if kind not in {wanted, b"none"}:
            found.append(f"{key} is a {kind.decode()}, not a {wanted.decode()}")
        elif kind == b"hash" and name in _NUMBERS:
            found += _not_numbers(client, key)
    return found


def _not_numbers(client: redis.Redis, key: str) -> list[str]:
    fields: dict[Any, Any] = client.hgetall(key)
    return [
        f"field {field!r:.60} of {key} is {value!r:.40}, not a number"
        for field, value in fields.items()
        if not re.fullmatch(rb"-?\d{1,18}", value)
    ][:3]
