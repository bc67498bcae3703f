"""Junk jobs of every kind, planted as another application, or a hostile one, would."""

from __future__ import annotations

import json
import pickle
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any, cast

import redis

from clusterer.jobs import enqueue_delivery

Hash = dict[bytes | bytearray | memoryview | str | int | float, Any]

GOOD: Hash = {
    "created_at": "2026-01-01T00:00:00.000000Z",
    "status": "queued",
    "timeout": "10",
}


def call(function: str, *args: object, **kwargs: object) -> bytes:
    """Return the data of a JSON job."""
    return zlib.compress(json.dumps([function, None, args, kwargs]).encode())


PICKLED = zlib.compress(pickle.dumps(("time.sleep", None, (0,), {})))
PROBE = call("workers.probe")
LARGE = object()
"""Stands for `_large`, which takes half a second to make."""

HASHES: dict[str, Hash] = {
    "pickled": {"data": PICKLED},
    "pickled, not packed": {"data": pickle.dumps(("time.sleep", None, (0,), {}))},
    "other function": {"data": call("time.sleep", 0)},
    "no data": {"description": "nothing"},
    "not zlib": {"data": b"x\x9c\x00\x01\x02"},
    "not JSON": {"data": zlib.compress(b"{")},
    "not UTF-8": {"data": zlib.compress(b'["\xff"]')},
    "not a call": {"data": zlib.compress(b"[1]")},
    "deep JSON": {"data": zlib.compress(b"[" * 60_000)},
    "unpacks to 100 MB": {"data": LARGE},
    "unpacks to 100 MB in a trace": {"data": PROBE, "exc_info": LARGE},
    "hostile arguments": {"data": call("workers.probe", "x" * 1000, y=1)},
    "other queue's wake-up": {"data": call("workers.deliver", "elsewhere")},
    "wake-up without arguments": {"data": call("workers.deliver")},
    "bad timeout": {"data": PROBE, "timeout": "abc"},
    "no time at all": {"data": PROBE, "timeout": "-7"},
    "endless timeout": {"data": PROBE, "timeout": "99999999999999999999"},
    "bad result_ttl": {"data": PROBE, "result_ttl": "1e9"},
    "bad created_at": {"data": PROBE, "created_at": "yesterday"},
    "bad status": {"data": PROBE, "status": "odd"},
    "bad text": {"data": PROBE, "description": b"\xff\xfe"},
    "bad worker": {"data": PROBE, "worker_name": b"\xff\xfe"},
    "bad field": {"data": PROBE, b"\xff\xfe": "x"},
    "dependencies": {"data": PROBE, "dependency_ids": '["other"]'},
    "callback": {"data": PROBE, "success_callback_name": "os.abort"},
    "webhooks": {"data": PROBE, "webhooks": '[{"url": "http://127.0.0.1:9"}]'},
    "repeats": {"data": PROBE, "repeats_left": "9", "repeat_intervals": "[0]"},
    "retries": {"data": PROBE, "retries_left": "9"},
    "rate limit": {"data": PROBE, "rate_limit_key": "k", "rate_limit_concurrency": "1"},
    "other origin": {"data": PROBE, "origin": "elsewhere"},
    "many fields": {"data": PROBE, **{f"field-{n}": "x" for n in range(100)}},
    "large field": {"data": PROBE, "meta": "x" * 100_000},
}
"""Kind of junk → the job's hash, on top of `GOOD`."""

IDS: dict[str, Callable[[int], bytes]] = {
    "no hash": lambda n: b"gone-%d" % n,
    "empty id": lambda n: b"",
    "id not UTF-8": lambda n: b"\xff\xfe-%d" % n,
    "id of another key": lambda n: b"x:dependents:%d" % n,
    "huge id": lambda n: b"x" * 5_000 + b"%d" % n,
    "same id": lambda n: b"gone",
}
"""Kind of junk → the id of the n-th job, none of which has a hash."""

KINDS = (*HASHES, *IDS, "wrong type", "same good job")


@cache
def _large() -> bytes:
    return zlib.compress(b" " * 10**8)


def plant(client: redis.Redis, queue: str, kind: str, count: int) -> None:
    """Put ``count`` junk jobs of a kind at the end of ``queue``."""
    pipe = client.pipeline(transaction=False)
    ids = [IDS[kind](n) if kind in IDS else b"junk-%d" % n for n in range(count)]
    for job_id in ids if kind not in IDS else ():
        if kind == "wrong type":
            pipe.rpush(b"rq:job:" + job_id, "x")
        elif kind in HASHES:
            given = {k: _large() if v is LARGE else v for k, v in HASHES[kind].items()}
            pipe.hset(b"rq:job:" + job_id, mapping={**GOOD, "origin": queue, **given})
    if kind == "same good job":
        enqueue_delivery(queue, client)
        ids = [cast(bytes, client.lindex(f"rq:queue:{queue}", 0))] * count
    pipe.rpush(f"rq:queue:{queue}", *ids)
    pipe.execute()
