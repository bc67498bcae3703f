"""The base of all stores: the connection to Redis, the time of Redis, and its errors as ours."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any

import redis

from clusterer.endpoint import error_at, error_text, open_client, unconfigured
from clusterer.errors import StateUnavailable, WrongKey
from clusterer.settings import Settings
from clusterer.store.badvalues import Command, WrongTypeError, is_bad_data, read_all
from clusterer.store.scripts import script


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
        if error is not None:
            self._translate(error)

    def _translate(self, error: BaseException) -> None:
        """Raise our error for an error of Redis; return for any other."""
        if is_bad_data(error):
            raise WrongKey(f"cannot {self._what}: {wrong_key(error)}") from error
        if isinstance(error, redis.RedisError):
            raise StateUnavailable(self._message(error)) from error

    def _message(self, error: redis.RedisError) -> str:
        text = unconfigured(self._settings) or error_at(self._settings, error)
        return f"cannot {self._what}: {text}"


def wrong_key(error: BaseException | None) -> str:
    """Return the wrong key, if the error names it, else the error."""
    if isinstance(error, WrongTypeError):
        return str(error)
    text = error_text(error) if isinstance(error, redis.RedisError) else ""
    return f"{text}; `clusterer doctor` names the key"


class Store:
    """Access to one kind of data in one Redis.

    Methods that use Redis raise `StateUnavailable` if Redis does not answer in time.
    """

    def __init__(self, settings: Settings, client: redis.Redis | None = None) -> None:
        self._settings = settings
        self._client = client or connect(settings)

    def close(self) -> None:
        """Close the connection; the next use makes another."""
        self._client.close()

    def _read(self, what: str, *commands: Command) -> list[Any]:
        """Return the replies to commands that read one key each, see `read_all`.

        ``what`` names the action in the message of an error.
        """
        with translated(self._settings, what):
            return read_all(self._client, commands)

    def _run(self, what: str, name: str, names: list[str], *arguments: Any) -> Any:
        """Run the script of ``lua/<name>.lua`` with the keys ``names``, and return its reply."""
        with translated(self._settings, what):
            return script(name)(self._client, names, *arguments)


def ms_of(time: Sequence[Any]) -> int:
    """Return the reply to Redis TIME in ms."""
    seconds, micros = time
    return int(seconds) * 1000 + int(micros) // 1000


def seconds_of(time: Sequence[int]) -> float:
    """Return the reply to Redis TIME in UNIX seconds."""
    seconds, micros = time
    return seconds + micros / 1e6


class Clock:
    """Redis's clock: the last time from Redis, counted on by the monotonic clock."""

    __slots__ = ("_ahead_ms",)

    def __init__(self) -> None:
        self._ahead_ms: float | None = None

    def tell(self, redis_ms: float, now: float) -> None:
        """Take Redis's time in ms at ``now`` (monotonic seconds)."""
        self._ahead_ms = redis_ms - now * 1000

    def ms(self, now: float) -> int | None:
        """Return Redis's ms at ``now``, a whole number; None before the first time."""
        return None if self._ahead_ms is None else int(now * 1000 + self._ahead_ms)
