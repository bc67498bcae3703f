"""Data in Redis as older versions wrote it: names of keys are literal, not those of today."""

from __future__ import annotations

from typing import Any

import redis

from tests.support.cluster import CLUSTER
from tests.support.frames import frame

QUEUE = "clusterer-delivery"


def now_ms(client: redis.Redis) -> int:
    """Return Redis's time in ms."""
    seconds, micros = client.time()
    return int(seconds) * 1000 + int(micros) // 1000


def put_packets(client: redis.Redis, count: int, *, entry_format: str | None = None) -> None:
    """Append packets 1 … ``count`` of sender 1, ten in each entry, as append.lua of old did."""
    ms, pipe = now_ms(client), client.pipeline(transaction=True)
    head = {} if entry_format is None else {"format": entry_format}
    for last in range(10, count + 1, 10):
        frames = b"".join(map(frame, range(last - 9, last + 1)))
        fields: dict[Any, Any] = head | {"cluster": CLUSTER.cluster_id, "protocol": "bin"}
        fields |= {"n": last, "packets": 10, "frames": frames}
        pipe.xadd("clusterer:log:1", fields, id=f"{last}-{ms}")
    counters: dict[Any, Any] = {"sequence": count, "1:bin": count, "since 1:bin": ms}
    pipe.hset("clusterer:counters:1", mapping=counters)
    pipe.sadd("clusterer:senders", 1)
    pipe.sadd("clusterer:queues", QUEUE)
    pipe.sadd(f"clusterer:pending:{QUEUE}", 1)
    pipe.set(f"clusterer:wake:{QUEUE}", ms, ex=600)
    pipe.xadd(f"clusterer:doorbell:{QUEUE}", {"sender": 1})
    pipe.execute()


def put_offset(client: redis.Redis, field: str, sequence: int) -> None:
    """Record that sender 1 delivered its packets up to ``sequence`` to a destination."""
    client.hset("clusterer:cursor:1", field, str(sequence))
    client.hset("clusterer:position:1", field, str(sequence))
    client.hset("clusterer:stats:1", f"{field}/sent", str(sequence))


def put_instance(client: redis.Redis, receiver: int, *, age_ms: int) -> None:
    """Register module ``m`` of an instance whose last heartbeat is ``age_ms`` old."""
    at, pipe = now_ms(client), client.pipeline(transaction=True)
    pipe.sadd("clusterer:instances", receiver)
    fields: dict[Any, Any] = {
        "run": "old",
        "begun": at - 90_000,
        "m:1": 10_000,
        "flushed_at": at - age_ms,
    }
    pipe.hset(f"clusterer:modules:{receiver}", mapping=fields)
    pipe.zadd(f"clusterer:heard:{receiver}:m:1", {"2": at - 1000})
    pipe.zadd(f"clusterer:silenced:{receiver}:m:1", {"3": at + 15_000})
    pipe.execute()
