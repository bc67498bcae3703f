"""What the figures were taken on."""

from __future__ import annotations

import os
import platform
from typing import Any

import redis


def machine(client: redis.Redis) -> dict[str, Any]:
    """Return cores, versions and kernel; nothing that names the host."""
    server: Any = client.info("server")
    return {
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "redis": server.get("redis_version", "unknown"),
        "kernel": platform.release().split("-")[0],
    }
