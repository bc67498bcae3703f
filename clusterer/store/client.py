"""The store's connection to Redis, and the translation of Redis's errors into ours."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import redis

from clusterer.endpoint import open_client, said, trouble, unconfigured
from clusterer.errors import StateUnavailable, WrongKey
from clusterer.settings import Settings
from clusterer.store.badvalues import WrongTypeError, is_bad_data


def connect(settings: Settings, **options: Any) -> redis.Redis:
    """Return a client, which connects on first use.

    Raises `SettingsError` for a URL that cannot be used.
    """
    return open_client(settings, **{"protocol": 2, "driver_info": None} | options)


class translated:  # noqa: N801 - reads as a word of the `with` statement
    """Turns redis-py's errors inside into `StateUnavailable`; the message names ``what`` failed.

    A class, because every packet needs one: a generator takes three times as long.
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
        if is_bad_data(error):
            raise WrongKey(f"cannot {self._what}: {wrong_key(error)}") from error
        if isinstance(error, redis.RedisError):
            raise StateUnavailable(self._message(error)) from error

    def _message(self, error: redis.RedisError) -> str:
        text = unconfigured(self._settings) or trouble(self._settings, error)
        return f"cannot {self._what}: {text}"


def wrong_key(error: BaseException | None) -> str:
    """Return the wrong key, if the error names it, else the error."""
    if isinstance(error, WrongTypeError):
        return str(error)
    text = said(error) if isinstance(error, redis.RedisError) else ""
    return f"{text}; `clusterer doctor` names the key"
