"""The sweep heals what a crash or a flush of RQ's queue leaves behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from clusterer.services import Context, sweep
from clusterer.settings import Settings
from clusterer.store import keys
from clusterer.store.packets import PacketLog
from tests.support.cluster import CLUSTER, frame, load, node
from tests.support.streams import entries

QUEUE = "clusterer-delivery"
RQ_QUEUE = f"rq:queue:{QUEUE}"


@pytest.fixture
def context(redis_client: redis.Redis, redis_url: str) -> Iterator[Context]:
    made = Context(Settings(redis_url=redis_url, backlog_max_age=5.0))
    load(made.settings, [node(1), node(2)])
    yield made
    made.close()


def test_a_log_that_nobody_drains_gets_one_job(context: Context, redis_client: redis.Redis) -> None:
    assert PacketLog(context.settings, 1).append(CLUSTER, [frame()])
    redis_client.delete(keys.wake(QUEUE))
    assert sweep.run(context) == 1
    assert sweep.run(context) == 0, "the job is queued now"
    assert redis_client.llen(RQ_QUEUE) == 1


def test_a_wake_up_whose_job_was_lost_is_replaced(
    context: Context, redis_client: redis.Redis
) -> None:
    PacketLog(context.settings, 1).append(CLUSTER, [frame()])
    assert not redis_client.llen(RQ_QUEUE)
    assert sweep.run(context) == 0, "the job may have been taken from the queue this moment"
    young = int(redis_client.get(keys.wake(QUEUE)) or 0)
    redis_client.set(keys.wake(QUEUE), young - sweep.STARTING_MS - 1)
    assert sweep.run(context) == 1
    assert redis_client.llen(RQ_QUEUE) == 1


def test_a_log_that_somebody_drains_is_left_alone(
    context: Context, redis_client: redis.Redis
) -> None:
    PacketLog(context.settings, 1).append(CLUSTER, [frame()])
    redis_client.set(keys.lease(1), "somebody")
    assert sweep.run(context) == 0


def test_idle_logs_cost_nothing(context: Context) -> None:
    assert sweep.run(context) == 0


def test_packets_older_than_backlog_max_age_are_dropped(
    context: Context, redis_client: redis.Redis
) -> None:
    log = PacketLog(context.settings, 1)
    seconds, micros = redis_client.time()
    now_ms = seconds * 1000 + micros // 1000
    for sequence in range(1, 101):
        age_ms = (101 - sequence) * 100
        redis_client.xadd(keys.log(1), {"frame": b""}, id=f"{sequence}-{now_ms - age_ms}")
    redis_client.hset(keys.counters(1), "sequence", 100)
    log.append(CLUSTER, [frame()])
    sweep.run(context)
    left = redis_client.xlen(keys.log(1))
    assert 40 <= left <= 51
    assert entries(redis_client, keys.log(1))[0][0].startswith(b"5")
