"""Redis clients for RQ, apart from all others: RQ changes its client's pool."""

from __future__ import annotations

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from clusterer.settings import Settings

TIMEOUT_S = 1.0


def connect(settings: Settings, *, timeout_s: float = TIMEOUT_S) -> redis.Redis:
    """Return a client for RQ only; connects when first used.

    ``timeout_s`` bounds connecting and every answer (RQ's workers raise the latter on their own
    clients). Nothing is retried: a repeated enqueue would be a second job. Replies stay bytes,
    even if the URL says otherwise: with decoded ones RQ's jobs would silently stay queued.
    """
    url = settings.redis_url or f"unix://{settings.redis_socket}"
    client = redis.Redis.from_url(
        url,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
    )
    client.connection_pool.connection_kwargs["decode_responses"] = False
    return client
