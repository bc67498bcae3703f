"""The sweep heals what a crash or a flush of RQ's queue leaves behind."""

from __future__ import annotations

import time

import pytest
import redis

from clusterer import jobs
from clusterer.membership import Event, State
from clusterer.membership.paths import observed
from clusterer.services import Context
from clusterer.services.periodic import sweep
from clusterer.store import keys
from clusterer.store.deliveries import LEASE_MS
from clusterer.store.packets import PacketLog
from clusterer.store.sessions import SessionStore
from tests.support.cluster import CLUSTER, load, node, take_lease
from tests.support.frames import frame
from tests.support.processes import wait_until
from tests.support.streams import entries

QUEUE = "clusterer-delivery"
RQ_QUEUE = f"rq:queue:{QUEUE}"


SETTINGS = {"backlog_max_age": 5.0}


@pytest.fixture
def context(context: Context) -> Context:
    """The context of `tests.conftest`, with two nodes in Redis."""
    load(context.settings, [node(1), node(2)])
    return context


def test_sweep_log_without_lease_gets_one_job(context: Context, redis_client: redis.Redis) -> None:
    assert PacketLog(context.settings, 1).append(CLUSTER, [frame(0)])
    redis_client.delete(keys.enqueued(QUEUE))
    assert sweep.run(context) == 1
    assert sweep.run(context) == 0, "the job is queued now"
    assert redis_client.llen(RQ_QUEUE) == 1


def test_sweep_enqueued_flag_without_job_is_replaced(
    context: Context, redis_client: redis.Redis
) -> None:
    PacketLog(context.settings, 1).append(CLUSTER, [frame(0)])
    assert not redis_client.llen(RQ_QUEUE)
    assert sweep.run(context) == 0, "the job may have been taken from the queue this moment"
    young = int(redis_client.get(keys.enqueued(QUEUE)) or 0)
    redis_client.set(keys.enqueued(QUEUE), young - sweep.STARTING_MS - 1)
    assert sweep.run(context) == 1
    assert redis_client.llen(RQ_QUEUE) == 1


@pytest.mark.parametrize(
    ("in_hand", "said"),
    [
        (None, True),
        (("lpush", f"{RQ_QUEUE}:intermediate", 0), False),
        (("zadd", f"rq:wip:{QUEUE}", jobs.HEARTBEAT_TTL_S), False),
        (("zadd", f"rq:wip:{QUEUE}", jobs.HEARTBEAT_TTL_S - 10), True),
    ],
    ids=["lost", "taken", "started", "started long ago"],
)
def test_sweep_job_just_taken_is_not_reported_lost(
    in_hand: tuple[str, str, int] | None,
    said: bool,
    context: Context,
    redis_client: redis.Redis,
    caplog: pytest.LogCaptureFixture,
) -> None:
    PacketLog(context.settings, 1).append(CLUSTER, [frame(0)])
    young = int(redis_client.get(keys.enqueued(QUEUE)) or 0)
    redis_client.set(keys.enqueued(QUEUE), young - sweep.STARTING_MS - 1)
    if in_hand and in_hand[0] == "lpush":
        redis_client.lpush(in_hand[1], "job")
    elif in_hand:
        redis_client.zadd(in_hand[1], {"job:execution": time.time() + in_hand[2]})
    assert sweep.run(context) == 1, "one wake-up too many does no harm"
    assert ("delivery job missing" in caplog.text) is said


def test_sweep_log_with_lease_gets_no_job(context: Context, redis_client: redis.Redis) -> None:
    PacketLog(context.settings, 1).append(CLUSTER, [frame(0)])
    redis_client.set(keys.lease(1), "worker")
    assert sweep.run(context) == 0


def test_sweep_clock_set_back_delays_no_job(context: Context, redis_client: redis.Redis) -> None:
    """An hour: the lease of a dead worker, a lost wake-up, the guard of a closed connection."""
    hour_ms = 3_600_000
    seconds, micros = redis_client.time()
    soon = seconds * 1000 + micros // 1000 + hour_ms
    log, store = PacketLog(context.settings, 1), SessionStore(context.settings, QUEUE, "test")
    log.append(CLUSTER, [frame(0)])
    redis_client.set(keys.lease(1), "dead worker", px=hour_ms)
    redis_client.set(keys.enqueued(QUEUE), soon)
    redis_client.hset(keys.closing(1), "1/2/1", f"{soon} dead worker")
    assert sweep.run(context) == 0, "a lease that is renewed stays"
    assert 0 < redis_client.pttl(keys.lease(1)) <= LEASE_MS
    wait_until(lambda: sweep.run(context), message="a delivery job is enqueued")
    claim = take_lease(store, 1)
    assert claim is not None
    assert not claim.guarded
    assert not redis_client.exists(keys.closing(1))
    redis_client.hset(keys.closing(1), "1/2/1", f"{soon} dead worker")
    assert not store.guards([1])[0].up


def test_sweep_many_idle_senders_cost_no_more_commands(
    context: Context, redis_client: redis.Redis
) -> None:
    def commands() -> int:
        return int(redis_client.info("stats")["total_commands_processed"])

    redis_client.sadd(keys.QUEUES, QUEUE)
    sweep.run(context)
    before = commands()
    assert sweep.run(context) == 0
    cost = commands() - before
    pipe = redis_client.pipeline(transaction=False)
    for sender in range(1, 10_001):
        pipe.sadd(keys.SENDERS, sender)
        pipe.hset(keys.counters(sender), mapping={"sequence": 7, "1:bin": 7})
        pipe.hset(keys.committed(sender), "1/2/1", 7)
        pipe.hset(keys.committed_count(sender), "1/2/1", 7)
    pipe.execute()
    before = commands()
    assert sweep.run(context) == 0
    assert commands() - before < cost + 10  # what other clients of the test ask for


def test_sweep_minute_without_workers_queues_one_job(
    context: Context, redis_client: redis.Redis
) -> None:
    """Sixty sweeps, the clock a second further each time, packets in between."""
    log, client = PacketLog(context.settings, 1), jobs.connect(context.settings)
    for second in range(60):
        for _ in range(5):
            if log.append(CLUSTER, [frame(0)]):
                jobs.enqueue_delivery(QUEUE, client)
        sweep.run(context)
        assert redis_client.llen(RQ_QUEUE) == 1, second
        since = int(redis_client.get(keys.enqueued(QUEUE)) or 0)
        redis_client.set(keys.enqueued(QUEUE), since - 1000, keepttl=True)
    assert redis_client.ttl(keys.enqueued(QUEUE)) > 500, "and it would be another nine minutes"


@pytest.mark.parametrize(
    ("verdict", "tries", "resumes"),
    [
        (State.UP, 0, True),
        (State.UP, 1, False),
        (State.UP, 3, False),
        (State.PROBING, 0, True),
        (State.PROBING, 1, False),
        (State.DOWN, 0, False),
    ],
)
def test_sweep_waiting_log_resumes_by_its_own_gate(
    context: Context,
    redis_client: redis.Redis,
    verdict: State,
    tries: int,
    resumes: bool,
) -> None:
    """The verdict of all hosts resumes no log: only what this sender itself can reach does."""
    load(context.settings, [node(1), node(2, state=verdict, no_tries=verdict is State.PROBING)])
    found, now = context.nodes.read(CLUSTER, 2)
    assert found is not None
    path = None
    for _ in range(tries):
        path = observed(found, path, Event.SEND_FAILED, int(now * 1000), "test")
    if path is not None:
        redis_client.hset(keys.paths(1), found.destination, str(path))
        redis_client.hset(keys.PATHS, "1", 1)
    redis_client.hset(keys.counters(1), "sequence", 5)
    redis_client.hset(keys.committed(1), found.destination, 4)
    redis_client.sadd(keys.waiting(QUEUE), 1)
    redis_client.sadd(keys.QUEUES, QUEUE)
    sweep.run(context)
    assert redis_client.sismember(keys.pending(QUEUE), "1") == resumes
    assert redis_client.sismember(keys.waiting(QUEUE), "1") != resumes


def test_sweep_idle_logs_take_no_commands(context: Context) -> None:
    assert sweep.run(context) == 0


@pytest.fixture
def aged(context: Context, redis_client: redis.Redis) -> Context:
    """A log whose 100 packets are 0.1 to 10 s old, twice as old as they may become."""
    log = PacketLog(context.settings, 1)
    seconds, micros = redis_client.time()
    now_ms = seconds * 1000 + micros // 1000
    for sequence in range(1, 101):
        age_ms = (101 - sequence) * 100
        redis_client.xadd(keys.log(1), {"frame": b""}, id=f"{sequence}-{now_ms - age_ms}")
    redis_client.hset(keys.counters(1), "sequence", 100)
    log.append(CLUSTER, [frame(0)])
    return context


def sweep_until(context: Context, now: float) -> None:
    """Note a sweep in each of the seven seconds before ``now``."""
    for ago_s in range(7, 0, -1):
        context.sweeps.lasted_s(now - ago_s, 1.5)


def test_sweep_drops_packets_older_than_backlog_max_age(
    aged: Context, redis_client: redis.Redis
) -> None:
    sweep_until(aged, aged.nodes.now())
    sweep.run(aged)
    left = redis_client.xlen(keys.log(1))
    assert 40 <= left <= 51
    assert entries(redis_client, keys.log(1))[0][0].startswith(b"5")


@pytest.mark.parametrize("ago_s", [None, 60, -3600], ids=["start", "outage", "clock set back"])
def test_sweep_after_a_gap_drops_no_packet(
    aged: Context, redis_client: redis.Redis, ago_s: int | None
) -> None:
    if ago_s is not None:
        sweep_until(aged, aged.nodes.now() - ago_s)
    sweep.run(aged)
    assert redis_client.xlen(keys.log(1)) == 101
