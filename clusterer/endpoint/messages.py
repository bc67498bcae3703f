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
