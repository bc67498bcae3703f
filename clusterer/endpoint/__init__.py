"""Where Redis is, clients of it for the store and for RQ, and its errors in words for people."""

from clusterer.endpoint.client import TIMEOUT_S, follow, open_client
from clusterer.endpoint.messages import (
    NO_CLUSTER,
    awaited,
    error_at,
    error_text,
    remedy,
    unconfigured,
)
from clusterer.endpoint.primary import is_away
from clusterer.endpoint.redis_private import socket_of
from clusterer.endpoint.sentinel_url import is_sentinel_url
from clusterer.endpoint.url import public_url, redis_url

__all__ = [
    "NO_CLUSTER",
    "TIMEOUT_S",
    "awaited",
    "error_at",
    "error_text",
    "follow",
    "is_away",
    "is_sentinel_url",
    "open_client",
    "public_url",
    "redis_url",
    "remedy",
    "socket_of",
    "unconfigured",
]
