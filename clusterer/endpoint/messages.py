"""Redis's errors in words for people."""

from __future__ import annotations

import re

import redis

from clusterer.endpoint.url import public_url
from clusterer.settings import Settings

_NOISE = re.compile(
    r"^Error -?\d+ connecting to .*?\. (?=[A-Z])"
    r"|^Command # \d+ \(.*?\) of pipeline caused error: "
    r"|\.? script: [0-9a-f]{40}, on @user_script:\d+"
    r"|\.$",
    re.DOTALL,
)
"""What redis-py and Redis put around the words that tell: the address, our own commands."""

_USER = "correct user and password in redis_url"
_RIGHTS = "let redis_url's user do that: `ACL SETUSER`"
_PRIMARY = "point redis_url at the primary server"
_CLASSES: tuple[tuple[type[redis.RedisError], str], ...] = (
    (redis.AuthenticationError, _USER),
    (redis.exceptions.NoPermissionError, _RIGHTS),
    (redis.ReadOnlyError, _PRIMARY),
    (redis.exceptions.MasterDownError, _PRIMARY),
    (redis.OutOfMemoryError, "raise maxmemory"),
    (redis.BusyLoadingError, "wait until it has"),
)
_WORDS = (
    ("HELLO must be called|NOAUTH|Authentication required|invalid username-password", _USER),
    ("no permissions|NOPERM", _RIGHTS),
    ("read only replica|READONLY|MASTERDOWN|UNBLOCKED", _PRIMARY),
    ("NOREPLICAS", "look at its replicas and at min-replicas-to-write"),
    ("used memory >", "raise maxmemory"),
    ("loading the dataset", "wait until it has"),
    ("MISCONF", "look at Redis's log and its disk"),
    ("DB index is out of range", "correct the number of the database in redis_url"),
)
"""For errors of the server that redis-py has no class for, and those of scripts."""

_ELSE = "start Redis, or correct redis_url"


def trouble(settings: Settings, error: redis.RedisError) -> str:
    """Return which Redis it is, and what it or the way to it suffers from."""
    return f"Redis at {public_url(settings)}: {said(error)}"


def said(error: redis.RedisError) -> str:
    """Return what Redis, or the way to it, suffers from."""
    text = _NOISE.sub("", str(error))
    return "Authentication required" if text.startswith("HELLO must be called") else text


def remedy(error: BaseException) -> str:
    """Return what to do about an error of Redis, or one raised from it.

    It follows the kind of the error and the server's words, never the URL. Empty if the error
    says itself what to do.
    """
    cause = error if isinstance(error, redis.RedisError) else error.__cause__
    if "start `clusterer up`" in str(error):
        return ""
    for kind, what in _CLASSES:
        if isinstance(cause, kind):
            return what
    if not isinstance(cause, redis.RedisError) or isinstance(
        cause, redis.ConnectionError | redis.TimeoutError
    ):
        return _ELSE
    text = said(cause)
    return next((what for pattern, what in _WORDS if re.search(pattern, text)), _ELSE)
