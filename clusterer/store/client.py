"""The connection to Redis, and the translation of its errors into ours."""

from __future__ import annotations

from types import TracebackType
from typing import Any
from urllib.parse import quote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from clusterer.errors import SettingsError, StateUnavailable
from clusterer.settings import Settings

TIMEOUT_S = 1.0
"""Longest wait for Redis to accept a connection and, again, to answer one command. Without
retries both together stay within the 2 s after which every call has to fail."""


def redis_url(settings: Settings) -> str:
    """Return the URL of Redis: the configured one, else the embedded server's socket."""
    return settings.redis_url or f"unix://{quote(str(settings.redis_socket))}"


def public_url(settings: Settings) -> str:
    """Return the URL of Redis without its password, for messages."""
    url = redis_url(settings)
    parts = urlsplit(url)
    if not parts.password:
        return url
    return url.replace(f":{parts.password}@", ":***@", 1)


def connect(settings: Settings, **options: Any) -> redis.Redis:
    """Return a client. It never retries: a repeated append would store a packet twice.

    Connects on first use. Raises `SettingsError` for a URL that cannot be used.
    """
    chosen = {
        "socket_timeout": TIMEOUT_S,
        "socket_connect_timeout": TIMEOUT_S,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        "driver_info": None,
    } | options
    url = redis_url(settings)
    if url.startswith("unix://"):
        chosen.pop("socket_connect_timeout")
    try:
        return redis.Redis.from_url(url, **chosen)
    except ValueError as error:
        raise SettingsError(f"redis_url {public_url(settings)!r}: {error}") from error


class translated:  # noqa: N801 - reads as a word of the `with` statement
    """Turn whatever redis-py raises inside into `StateUnavailable` that says ``what`` failed.

    A class, because it stands on the way of every packet: a generator takes three times as long.
    """

    __slots__ = ("_settings", "_what")

    def __init__(self, settings: Settings, what: str) -> None:
        self._settings = settings
        self._what = what

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, redis.RedisError):
            raise StateUnavailable(self._message(error)) from error

    def _message(self, error: redis.RedisError) -> str:
        settings, what = self._settings, self._what
        if not settings.redis_url and not settings.redis_socket.exists():
            return (
                f"cannot {what}: redis_url is not set, and no embedded Redis runs in "
                f"{settings.data_path}: start `clusterer up`, or set redis_url"
            )
        return f"cannot {what}: Redis at {public_url(settings)}: {error}"
