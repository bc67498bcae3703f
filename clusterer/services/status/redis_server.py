"""The Redis server: its product, version, role and replicas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clusterer.endpoint import public_url
from clusterer.services.context import Context
from clusterer.settings import Settings
from clusterer.store import translated


@dataclass(frozen=True, slots=True)
class RedisServer:
    """The server that answers."""

    url: str
    """Without a password."""
    product: str
    """``Redis`` or ``Valkey``."""
    version: str
    primary: bool
    """False for a replica, which takes no writes."""
    replicas: int
    """Replicas that are connected."""


def read(context: Context) -> RedisServer:
    """Return the server's role; one round trip. Raises `StateUnavailable`."""
    with translated(context.settings, "read the state of Redis"):
        return described(context.settings, context.redis.info())


def described(settings: Settings, info: Mapping[str, Any]) -> RedisServer:
    """Return what ``info``, the reply to INFO, says of the server."""
    product = "Valkey" if "valkey_version" in info else "Redis"
    version = info.get("valkey_version", info.get("redis_version", "?"))
    primary = info.get("role") in (None, "master")
    url = public_url(settings)
    return RedisServer(url, product, str(version), primary, int(info.get("connected_slaves", 0)))
