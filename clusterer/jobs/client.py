"""Redis clients for RQ, apart from all others: RQ changes its client's pool."""

from __future__ import annotations

import redis

from clusterer.endpoint import TIMEOUT_S, open_client
from clusterer.settings import Settings


def connect(settings: Settings, *, timeout_s: float = TIMEOUT_S) -> redis.Redis:
    """Return a client for RQ only; connects when first used.

    ``timeout_s`` bounds connecting and every answer (RQ's workers raise the latter on their own
    clients). Raises `SettingsError` for a URL that cannot be used.
    """
    return open_client(settings, socket_timeout=timeout_s, socket_connect_timeout=timeout_s)
