"""The checks of the Redis server: reachable, of a supported version, and without loss of keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from time import perf_counter
from typing import Any

import redis

from clusterer.endpoint import NO_CLUSTER
from clusterer.services.context import Context
from clusterer.services.doctor.finding import Finding, error, ok, warn
from clusterer.services.status import redis_server
from clusterer.services.status.redis_server import RedisServer
from clusterer.store.client import translated

SERVER = "redis"
PERSISTENCE = "redis persistence"
EVICTION = "redis eviction"
MEMORY = "redis memory"
CHECKS = (SERVER, PERSISTENCE, EVICTION, MEMORY)
REPLICAS = "redis replicas"
"""The check of `wait_replicas`; without that setting there is none."""

OLDEST = (6, 2)
"""LMOVE, ZMSCORE and exclusive stream ranges need this version."""

_MOSTLY_FULL = 0.9

Info = Mapping[str, Any]


def check(context: Context) -> Iterator[Finding]:
    """Check the server. Raises `StateUnavailable` if it cannot be reached."""
    with translated(context.settings, "read the state of Redis"):
        before = perf_counter()
        context.redis.time()  # a server that cannot write its snapshots refuses even PING
        took_ms = (perf_counter() - before) * 1000
        info: Info = context.redis.info()
    yield _server(info, redis_server.described(context.settings, info), took_ms)
    if context.settings.wait_replicas:
        yield _replicas(info, context.settings.wait_replicas)
    yield _persistence(
        info,
        _configured(context, "appendfsync"),
        refuses=_configured(context, "stop-writes-on-bgsave-error") == "yes"
        and bool(_configured(context, "save")),
    )
    yield eviction(info)
    yield _memory(info)


def _configured(context: Context, name: str) -> str:
    """Return a parameter of the server, empty where CONFIG is forbidden."""
    try:
        found: Any = context.redis.config_get(name)
    except redis.ResponseError:
        return ""
    return str(found.get(name, ""))


def _server(info: Info, server: RedisServer, took_ms: float) -> Finding:
    text = f"{server.product} {server.version} at {server.url} answers in {took_ms:.1f} ms"
    if not server.primary:
        return error(SERVER, f"{text}, as a replica", "point redis_url at the primary server")
    if info.get("cluster_enabled"):
        return error(SERVER, f"{text}, in cluster mode", NO_CLUSTER)
    version = str(info.get("redis_version", "?"))  # of Valkey: the Redis that it matches
    if tuple(int(part) for part in version.split(".")[:2] if part.isdecimal()) < OLDEST:
        return error(SERVER, f"{text}, too old", "install Redis 6.2 or newer")
    return ok(SERVER, text)


def _replicas(info: Info, wanted: int) -> Finding:
    """Return whether there are as many replicas as each packet waits for."""
    found = [info[f"slave{at}"] for at in range(int(info.get("connected_slaves", 0)))]
    online = sum(each["state"] == "online" for each in found)
    text = f"{online} online, wait_replicas is {wanted}"
    if online < wanted:
        return error(
            REPLICAS,
            f"{text}: no packet can be sent without an error",
            "start the replicas, or lower wait_replicas",
        )
    return ok(REPLICAS, text)


def _persistence(info: Info, fsync: str, *, refuses: bool) -> Finding:
    if refuses and info.get("rdb_last_bgsave_status", "ok") != "ok":
        return error(
            PERSISTENCE,
            "the last snapshot (RDB) failed: Redis refuses writes until a snapshot succeeds",
            "check Redis's log and its disk",
        )
    if not info.get("aof_enabled"):
        return error(
            PERSISTENCE,
            "no append-only file: a crash loses packets and states",
            "set 'appendonly yes' in redis.conf (now: redis-cli CONFIG SET appendonly yes)",
        )
    if info.get("aof_last_write_status", "ok") != "ok":
        return error(
            PERSISTENCE, "Redis cannot write the append-only file", "check Redis's log and its disk"
        )
    if fsync == "no":
        return error(
            PERSISTENCE,
            "append-only file with 'appendfsync no': a power cut loses half a minute",
            "set 'appendfsync everysec' in redis.conf",
        )
    if info.get("aof_last_bgrewrite_status", "ok") != "ok":
        return warn(PERSISTENCE, "the last AOF rewrite failed", "check Redis's log and its disk")
    return ok(PERSISTENCE, "append-only file" + (f", appendfsync {fsync}" if fsync else ""))


def eviction(info: Info) -> Finding:
    """Return the finding about the eviction policy."""
    policy, limit = str(info.get("maxmemory_policy", "?")), int(info.get("maxmemory", 0))
    evicted = int(info.get("evicted_keys", 0))
    advice = (
        "set 'maxmemory-policy noeviction' in redis.conf "
        "(now: redis-cli CONFIG SET maxmemory-policy noeviction)"
    )
    if policy != "noeviction":
        gone = f"; {evicted} keys deleted since the start" if evicted else ""
        when = "as soon as memory is full" if limit else "as soon as maxmemory is set"
        return error(EVICTION, f"{policy}: Redis deletes keys {when}{gone}", advice)
    return ok(EVICTION, "noeviction")


def _memory(info: Info) -> Finding:
    used, limit = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    text = f"{used / 2**20:.1f} MB used"
    if not limit:
        return ok(MEMORY, f"{text}, no limit")
    text = f"{text} of {limit / 2**20:.0f} MB"
    if used > limit:
        return error(MEMORY, f"{text}: Redis refuses writes", "raise maxmemory")
    if used > limit * _MOSTLY_FULL:
        return warn(MEMORY, f"{text}: Redis refuses writes when memory is full", "raise maxmemory")
    return ok(MEMORY, text)
