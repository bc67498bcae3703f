"""Clients of RQ's Redis, and whether RQ is suspended there.

RQ changes its client's pool, so its clients are apart from all others. After `rq suspend` no worker
on that Redis database starts a job.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Any, Self

import redis
from rq.suspension import WORKERS_SUSPENDED

from clusterer.endpoint import is_sentinel_url, open_client, public_url
from clusterer.settings import Settings


def connect(settings: Settings) -> redis.Redis:
    """Return a client for RQ only; the first use connects it.

    `endpoint.TIMEOUT_S` bounds connecting and every answer (RQ's workers raise the latter on their
    own clients). Raises `SettingsError` for a URL that cannot be used.
    """
    return open_client(settings)


SUSPENDED = WORKERS_SUSPENDED
"""RQ's key; it exists while RQ is suspended."""

_NO_KEY = -2
_NO_TTL = -1


@dataclass(frozen=True, slots=True)
class Suspension:
    """RQ is suspended."""

    left_s: float | None
    """Seconds until it ends by itself; None if only `rq resume` ends it."""

    @classmethod
    def of(cls, pttl_ms: int) -> Self | None:
        """Return what Redis's reply to PTTL of `SUSPENDED` means; None: not suspended."""
        if pttl_ms == _NO_KEY:
            return None
        return cls(None if pttl_ms == _NO_TTL else pttl_ms / 1000)

    @classmethod
    def read(cls, client: redis.Redis) -> Self | None:
        """Return the suspension in Redis, None without one. Raises errors of redis-py."""
        pttl_ms: Any = client.pttl(SUSPENDED)
        return cls.of(pttl_ms)


def resume_command(settings: Settings) -> str:
    """Return the command that ends a suspension; the URL in it has no secrets.

    RQ's own commands take no URL of Sentinel; docs/deployment.md has the file that they take.
    """
    if is_sentinel_url(settings.redis_url):
        return "rq resume --config rq_sentinel"
    return f"rq resume --url {shlex.quote(public_url(settings))}"
