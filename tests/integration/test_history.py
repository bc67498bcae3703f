"""The history job: samples of each node's traffic in bounded streams of Redis."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import Any

import pytest
import redis

from clusterer.jobs.fleet import LATE_S
from clusterer.jobs.keys import SCHEDULED
from clusterer.runtime.pace import DutyCycle
from clusterer.services import Context
from clusterer.services.periodic import history
from clusterer.services.status import fleet, node_list, totals
from clusterer.store import keys
from clusterer.store.badvalues import collected
from clusterer.store.history import LENGTH, HistoryStore, Recorded, Sample
from scheduler import Scheduler, periodic_jobs
from tests.support.cluster import CLUSTER, load, node
from tests.support.scale import scaled
from tests.support.seeding import make_node, put_node

SENT = Sample(sent_to=0, sent_by=77, skipped=0, lost=0, backlog=0)


@pytest.fixture
def context(context: Context, redis_client: redis.Redis) -> Context:
    """Of a cluster with nodes 1 to 4; node 1 sends to 2 and 3, node 4 has no traffic."""
    for machine_id in range(1, 5):
        put_node(redis_client, make_node(machine_id, generation=machine_id))
    redis_client.hset(keys.counters(1), mapping={"sequence": 90, "1:bin": 90})
    redis_client.hset(keys.committed_count(1), mapping={"1/2/2": 70, "1/3/3": 90})
    redis_client.hset(keys.committed(1), mapping={"1/2/2": 70, "1/3/3": 90})
    _count(redis_client, "1/2/2", sent=60, skipped=7, lost=3)
    _count(redis_client, "1/3/3", sent=17)
    return context


def _count(client: redis.Redis, field: str, **stats: int) -> None:
    client.hset(keys.stats(1), mapping={f"{field}/{name}": n for name, n in stats.items()})


def _read(context: Context, *machine_ids: int) -> dict[int, list[Recorded]]:
    return HistoryStore(context.settings, context.redis).read(CLUSTER, machine_ids or (1, 2, 3, 4))


def _run(context: Context) -> int:
    context.histories._next = -inf
    return history.run(context)


def test_history_run_records_sums_of_each_node(context: Context) -> None:
    assert _run(context) == 3
    found = _read(context)
    assert [sample for _, sample in found[1]] == [SENT]
    assert [sample for _, sample in found[2]] == [Sample(60, 0, 7, 3, 20)]
    assert [sample for _, sample in found[3]] == [Sample(17, 0, 0, 0, 0)]
    assert found[4] == [], "a node without traffic needs no memory"
    assert found[1][0].at == pytest.approx(context.nodes.now(), abs=60)


def test_history_sums_are_those_of_the_listing(context: Context, redis_client: redis.Redis) -> None:
    redis_client.hset(keys.counters(2), mapping={"sequence": 50, "1:bin": 50})
    redis_client.hset(keys.stats(2), mapping={"1/3/3/sent": 5, "1/1/1/lost": 4, "9/9/9/sent": 1})
    redis_client.hset(keys.stats(2), mapping={"1/4/4/skipped": "<b>", "odd": "x"})
    redis_client.hset(keys.committed_count(2), mapping={"1/3/3": 45, "1/1/1": 60, "1/4/4": 50})
    context.directory.refresh()
    with collected() as problems:
        found = history.sums(context, tuple(context.directory.snapshot.values()), 60.0)
    assert found is not None
    assert {each.place for each in problems} == {"field 1/4/4/skipped"}
    listed = {to.machine_id: to for to in totals.by_node(node_list.run(context).traffic)}
    for (_, machine_id), each in found.items():
        if to := listed.get(machine_id):
            assert each[2:] == (to.skipped, to.lost, to.backlog)
            assert each.sent_to == to.sent
    sent_by = {machine_id: each.sent_by for (_, machine_id), each in found.items()}
    assert (sent_by[1], sent_by[2]) == (77, 5)


def test_history_stream_keeps_last_samples_and_ends(
    context: Context, redis_client: redis.Redis
) -> None:
    store = HistoryStore(context.settings, context.redis)
    for number in range(LENGTH + 5):
        store.record(CLUSTER, {2: replace_sent(number)}, 60.0)
    found = _read(context, 2)[2]
    assert [each.sample.sent_to for each in found] == list(range(5, LENGTH + 5))
    assert [each.at for each in found] == sorted(each.at for each in found)
    assert store.read(CLUSTER, [2], last=2)[2] == found[-2:]
    assert 0 < redis_client.pttl(keys.history(*CLUSTER, 2)) <= 60_000


def replace_sent(count: int) -> Sample:
    return Sample(count, 0, 0, 0, 0)


def test_history_switched_off_records_nothing(context: Context, redis_client: redis.Redis) -> None:
    context.settings = replace(context.settings, history_interval=0.0)
    assert _run(context) == 0
    assert not redis_client.keys("clusterer:1:bin:history:*")


def test_history_of_removed_node_is_deleted(context: Context, redis_client: redis.Redis) -> None:
    _run(context)
    load(context.settings, [node(1), node(2)])
    assert not redis_client.exists(keys.history(*CLUSTER, 3))
    assert redis_client.exists(keys.history(*CLUSTER, 2))
    store = HistoryStore(context.settings, context.redis)
    store.record(CLUSTER, {3: SENT}, 60.0)
    assert not redis_client.exists(keys.history(*CLUSTER, 3)), "a late sample leaves nothing"


def test_history_of_wrong_type_begins_again(context: Context, redis_client: redis.Redis) -> None:
    redis_client.set(keys.history(*CLUSTER, 2), "text")
    with collected() as problems:
        assert _read(context, 2) == {2: []}
        _run(context)
    assert [len(found) for found in _read(context).values()] == [1, 1, 1, 0]
    assert {each.key for each in problems} == {keys.history(*CLUSTER, 2)}


def test_history_with_times_after_now_begins_again(
    context: Context, redis_client: redis.Redis
) -> None:
    later = int((context.nodes.now() + 3600) * 1000)
    redis_client.xadd(keys.history(*CLUSTER, 2), {"sent_to": 1}, id=f"{later}-0")
    _run(context)
    (only,) = _read(context, 2)[2]
    assert only.at < context.nodes.now() + 60


@pytest.mark.parametrize("value", [b"\xff\xfe", b"-1", b"<script>", b"9" * 40, None])
def test_history_bad_sample_is_skipped_and_named(
    value: bytes | None, context: Context, redis_client: redis.Redis
) -> None:
    fields: dict[bytes | str, bytes | int] = dict.fromkeys(Sample._fields, 1)
    fields |= {"lost": value} if value is not None else {}
    if value is None:
        del fields["lost"]
    redis_client.xadd(keys.history(*CLUSTER, 2), fields, id="1-0")  # type: ignore[arg-type]
    _run(context)
    with collected() as problems:
        (only,) = _read(context, 2)[2]
    assert only.sample.sent_to == 60
    assert [each.place for each in problems] == ["entry 1-0, field lost"]


def test_history_slow_run_is_dropped_and_rests(
    context: Context, monkeypatch: pytest.MonkeyPatch, redis_client: redis.Redis
) -> None:
    monkeypatch.setattr(history, "BUDGET_S", -1.0)
    assert _run(context) == 0
    assert not redis_client.keys("clusterer:1:bin:history:*")
    monkeypatch.undo()
    assert history.run(context) == 0, "the worker rests"
    assert _run(context) == 3


def test_duty_cycle_rests_as_long_as_the_run_took(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([100.0, 102.0, 141.9, 142.0])
    monkeypatch.setattr("clusterer.runtime.pace.monotonic", lambda: next(times))
    cycle = DutyCycle()
    with cycle.run(20):
        pass
    assert [cycle.may_run(), cycle.may_run()] == [False, True]


@pytest.mark.serial  # Redis answers within a second
def test_history_run_takes_bounded_commands(context: Context, redis_client: redis.Redis) -> None:
    nodes = scaled(1000, 10_000)
    same: dict[str, Any] = {"host": "127.0.0.1", "url": "bin:127.0.0.1:5555"}
    for machine_id in range(1, nodes + 1):
        put_node(redis_client, make_node(machine_id, generation=machine_id, **same))
    stats: dict[Any, Any] = {f"1/{m}/{m}/sent": 1_000_000 + m for m in range(2, nodes + 1)}
    redis_client.hset(keys.stats(1), mapping=stats)
    context.directory.refresh()
    before = _calls(redis_client, "evalsha"), _calls(redis_client, "hgetall")
    assert _run(context) == nodes
    # One for each 500 nodes that are written, and a few for the sums of the senders.
    assert _calls(redis_client, "evalsha") - before[0] <= nodes / 500 + 4
    assert _calls(redis_client, "hgetall") - before[1] <= 10, "four for each sender"


def _calls(client: redis.Redis, name: str) -> int:
    return int(client.info("commandstats").get(f"cmdstat_{name}", {}).get("calls", 0))


def test_history_job_does_not_hide_a_dead_scheduler(
    context: Context, redis_client: redis.Redis
) -> None:
    jobs = periodic_jobs(persistent_mode=False, history_interval=3600)
    Scheduler(redis_client, jobs).run(burst=True)
    assert redis_client.zscore(SCHEDULED, "clusterer-history")
    late_s = fleet.read(context).last_tick_s
    assert late_s is not None
    assert late_s < 60
    redis_client.zadd(SCHEDULED, dict.fromkeys((job.job_id for job in jobs[:-1]), 1.0))
    late_s = fleet.read(context).last_tick_s
    assert late_s is not None
    assert late_s > LATE_S
