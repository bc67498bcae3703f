"""Where Redis is, clients of it for the store and for RQ, and its errors in words for people."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from clusterer.errors import SettingsError
from clusterer.settings import Settings

TIMEOUT_S = 1.0
"""Longest wait for Redis to accept a connection and, again, to answer one command. Without
retries both together stay within the 2 s after which every call has to fail."""


_NOISE = re.compile(
    r"^Error -?\d+ connecting to .*?\. (?=[A-Z])"
    r"|^Command # \d+ \(.*?\) of pipeline caused error: "
    r"|\.? script: [0-9a-f]{40}, on @user_script:\d+"
    r"|\.$",
    re.DOTALL,
)
"""What redis-py and Redis put around the words that tell: the address, our own commands."""

_REMEDIES = (
    ("HELLO must be called|uthentication|password", "correct user and password in redis_url"),
    ("no permissions|NOPERM", "let redis_url's user do that: `ACL SETUSER`"),
    ("read only replica|READONLY|UNBLOCKED", "point redis_url at the primary server"),
    ("used memory >", "raise maxmemory"),
    ("loading the dataset", "wait until it has"),
    ("MISCONF", "look at Redis's log and its disk"),
    ("DB index is out of range", "correct the number of the database in redis_url"),
    ("start `clusterer up`", ""),
)
_ELSE = "start Redis, or correct redis_url"


class TlsConnection(redis.SSLConnection):
    """A connection over TLS that is not taken for used up when it is new.

    redis-py's pool refuses a connection on which something can be read before anything was
    asked. Over TLS 1.3 that is the rule: the server sends session tickets after the handshake.
    """

    def can_read(self, timeout: float = 0) -> bool:
        """Whether an answer, or the connection's end, is there to be read within ``timeout`` s."""
        if not super().can_read(timeout):
            return False
        # Something came, maybe only for the TLS layer: whatever is for us is in the parser now.
        # redis-py has no public way to let a parser read what there is.
        return bool(self._parser.read_from_socket(timeout=0, raise_on_timeout=False))


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


def open_client(settings: Settings, **options: Any) -> redis.Redis:
    """Return a client that connects on first use; ``options`` are redis-py's.

    It never retries: a repeated append would store a packet twice, a repeated enqueue be a
    second job. Raises `SettingsError` for a URL that cannot be used.
    """
    url = redis_url(settings)
    chosen = {
        "socket_timeout": TIMEOUT_S,
        "socket_connect_timeout": TIMEOUT_S,
        "retry": Retry(NoBackoff(), 0),
    } | options
    if url.startswith("unix://"):
        chosen.pop("socket_connect_timeout")
    elif url.startswith("rediss://"):
        chosen["connection_class"] = TlsConnection
    try:
        return redis.Redis.from_url(url, **chosen)
    except ValueError as error:
        raise SettingsError(f"redis_url {public_url(settings)!r}: {error}") from error


def trouble(settings: Settings, error: redis.RedisError) -> str:
    """Return which Redis it is, and what it or the way to it suffers from."""
    return f"Redis at {public_url(settings)}: {said(error)}"


def said(error: redis.RedisError) -> str:
    """Return what Redis, or the way to it, suffers from."""
    text = _NOISE.sub("", str(error))
    return "Authentication required" if text.startswith("HELLO must be called") else text


def remedy(text: str) -> str:
    """Return what to do about an error with the text of `trouble`; empty if it says so itself."""
    return next((what for pattern, what in _REMEDIES if re.search(pattern, text)), _ELSE)
