"""Clients of Redis, whose pools hand out connections to the primary."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import SentinelConnectionPool

from clusterer.endpoint.connection import Connection, Following, TlsConnection, UnixConnection
from clusterer.endpoint.primary import Server, server_of
from clusterer.endpoint.redis_private import hold_pool_lock
from clusterer.endpoint.sentinel_server import sentinel_server
from clusterer.endpoint.sentinel_url import is_sentinel_url, place_of
from clusterer.endpoint.url import check_url, redis_url
from clusterer.errors import SettingsError
from clusterer.settings import Settings

TIMEOUT_S = 1.0
"""Longest wait for Redis to accept a connection and, again, to answer one command. Without
retries both together stay within the 2 s after which every call has to fail."""

_CLASSES: dict[str, Callable[..., Following]] = {
    "unix": UnixConnection,
    "rediss": TlsConnection,
    "sentinels": TlsConnection,
}
_OURS: dict[type, Callable[..., Following]] = {
    redis.Connection: Connection,
    redis.SSLConnection: TlsConnection,
    redis.UnixDomainSocketConnection: UnixConnection,
}


class Pool(redis.ConnectionPool):
    """Hands out connections of which the server took writes within the last seconds."""

    def __init__(self, *args: Any, server: Server | None = None, **options: Any) -> None:
        """``server``: by default the process's `Server` of the host and port in ``options``."""
        super().__init__(*args, server=server or server_of(options), **options)
        hold_pool_lock(self)

    def get_connection(self, *args: Any, **options: Any) -> Any:
        connection: Any = super().get_connection(*args, **options)
        try:
            connection.ensure_primary()
        except BaseException:
            self.release(connection)
            raise
        return connection


def open_client(settings: Settings, **options: Any) -> redis.Redis:
    """Return a client that connects on first use; ``options`` are redis-py's.

    The client never retries: a repeated append would store a packet twice, a repeated enqueue be a
    second job. Raises `SettingsError` for a URL that cannot be used.
    """
    url = redis_url(settings)
    scheme = url.partition("://")[0]
    chosen = {
        "socket_timeout": TIMEOUT_S,
        "socket_connect_timeout": TIMEOUT_S,
        "retry": Retry(NoBackoff(), 0),
        "connection_class": _CLASSES.get(scheme, Connection),
    } | options
    check_url(url)
    if is_sentinel_url(url):
        place = place_of(url)
        url, chosen["server"] = place.redis_url, sentinel_server(place)
    pool = _pool(url, chosen)
    if pool is None:
        raise SettingsError("redis_url has an option after the ? whose value cannot be used")
    # Whatever the URL says: the store reads bytes, and with text RQ's jobs would stay queued.
    pool.connection_kwargs["decode_responses"] = False
    return redis.Redis.from_pool(pool)


def _pool(url: str, options: dict[str, Any]) -> Pool | None:
    """Return a pool, None if redis-py rejects the URL: its error may quote secrets."""
    try:
        pool = Pool.from_url(url, **options)
        pool.connection_class(**pool.connection_kwargs)  # connects to nothing
    except (ValueError, TypeError, redis.RedisError):
        return None
    return pool


def follow(client: redis.Redis, settings: Settings) -> None:
    """Make ``client``, which another library made, leave a server that cannot serve.

    Call it while the client does nothing. A client of redis-py's Sentinel stays on a replaced
    master until the connection breaks: it gets connections by ``settings``, if these name
    sentinels. Clients of `open_client` stay unchanged.
    """
    pool = client.connection_pool
    ours = _OURS.get(pool.connection_class)
    if isinstance(pool, SentinelConnectionPool) and is_sentinel_url(settings.redis_url):
        pool.disconnect()
        client.connection_pool = open_client(settings).connection_pool
    elif type(pool) is redis.ConnectionPool and ours is not None:
        pool.disconnect()
        client.connection_pool = Pool(connection_class=ours, **pool.connection_kwargs)
