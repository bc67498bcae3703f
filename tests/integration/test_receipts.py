"""Clocks, silences and notices in a real Redis; clocks are turned back instead of waited for."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import redis

from clusterer.errors import StateUnavailable
from clusterer.services import Context
from clusterer.services.periodic import timeouts
from clusterer.settings import Settings
from clusterer.store import keys
from clusterer.store.badvalues import collected
from clusterer.store.receipts import GONE_MS, Receipts
from clusterer.store.watches import Flushed, FlushState, Verdict, Watch
from tests.support.ports import free_port
from tests.support.processes import EVENTUALLY_S, LATE_S, wait_until

RUN = "this run"
WATCH = Watch(1, "ratelimit", "ratelimit", 1, 5_000)
FLUSHED_AT = "heartbeat"


@pytest.fixture
def receipts(redis_url: str) -> Receipts:
    return Receipts(Settings(redis_url=redis_url))


@pytest.fixture
def last_notice(receipts: Receipts) -> str:
    """Node 1 has begun, registered `WATCH` for nodes 2 and 3, and flushed."""
    found = receipts.begin(1, RUN)
    assert receipts.register(WATCH, RUN, [2, 3])
    assert flush(receipts, found).state is FlushState.NOTED
    return found


def flush(
    receipts: Receipts,
    last_notice: str = "0-0",
    heard: dict[int, int] | None = None,
    age_ms: int = 0,
) -> Flushed:
    return receipts.flush(1, RUN, {WATCH: heard or {}}, age_ms=age_ms, last_notice=last_notice)


def turn_back(client: redis.Redis, ms: int, *machine_ids: int) -> None:
    """Set the last packets of these nodes to an earlier time."""
    for machine_id in machine_ids:
        client.zincrby(WATCH.last_seen, -ms, str(machine_id))


def run(context: Context) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    # Tests write clocks of the past: an earlier look does not know them.
    context.__dict__.pop("watch_plan", None)
    return [(verdict.muted, verdict.released) for verdict in timeouts.run(context)]


def test_receipts_silence_is_measured_to_last_flush(
    receipts: Receipts, last_notice: str, redis_client: redis.Redis, context: Context
) -> None:
    heartbeat = int(redis_client.hget(keys.modules(1), FLUSHED_AT) or 0)
    redis_client.zadd(WATCH.last_seen, {"2": heartbeat - 5_000, "3": heartbeat - 5_001})
    assert run(context) == [((3,), ())]
    assert redis_client.zrange(WATCH.last_seen, 0, -1) == [b"2"]
    assert redis_client.zrange(WATCH.muted, 0, -1) == [b"3"]


@pytest.mark.parametrize("score", ["inf", "-inf", -1])
def test_receptions_name_clock_that_is_no_time(
    score: str | int, receipts: Receipts, last_notice: str, redis_client: redis.Redis
) -> None:
    redis_client.zadd(WATCH.last_seen, {"3": float(score)})
    with collected() as problems:
        (found,) = receipts.receptions()
    assert found.last_seen_ms.keys() == {2}
    assert [(bad.key, bad.place) for bad in problems] == [(WATCH.last_seen, "member 3")]


def test_receipts_timeout_is_announced_and_lasts_twice(
    receipts: Receipts, last_notice: str, redis_client: redis.Redis, context: Context
) -> None:
    turn_back(redis_client, 6_000, 2)
    assert run(context) == [((2,), ())]
    reply = flush(receipts, last_notice)
    (notice,) = reply.notices
    assert (notice.token, notice.cluster_id, notice.machine_id) == ("ratelimit", 1, 2)
    assert 10_000 - LATE_S * 1000 < notice.muted_until_ms - reply.now_ms <= 10_000
    assert redis_client.zscore(WATCH.muted, "2") == notice.muted_until_ms
    assert flush(receipts, notice.id).notices == ()


FOREIGN_NOTICES = {
    "other fields": {"oops": b"\xff"},
    "no cluster": {"registration": "ratelimit:1", "machine_id": 2, "muted_until": 3},
    "cluster of text": {
        "registration": "ratelimit:1",
        "cluster": "oops",
        "machine_id": 2,
        "muted_until": 3,
    },
    "endless number": {
        "registration": "ratelimit:1",
        "cluster": 1,
        "machine_id": "9" * 5000,
        "muted_until": 3,
    },
    "negative time": {
        "registration": "ratelimit:1",
        "cluster": 1,
        "machine_id": 2,
        "muted_until": "-3",
    },
    "digits of another script": {
        "registration": "ratelimit:1",
        "cluster": "\u0661",
        "machine_id": 2,
        "muted_until": 3,
    },
    "registration that is no text": {
        "registration": b"\xff",
        "cluster": 1,
        "machine_id": 2,
        "muted_until": 3,
    },
}


@pytest.mark.parametrize("fields", FOREIGN_NOTICES.values(), ids=list(FOREIGN_NOTICES))
def test_receipts_flush_skips_and_names_foreign_notice(
    receipts: Receipts,
    last_notice: str,
    redis_client: redis.Redis,
    context: Context,
    fields: dict[Any, Any],
) -> None:
    redis_client.xadd(keys.notices(1), fields)
    turn_back(redis_client, 6_000, 2)
    assert run(context) == [((2,), ())]
    with collected() as found:
        reply = flush(receipts, last_notice)
    assert [bad.key for bad in found] == [keys.notices(1)]
    assert [notice.machine_id for notice in reply.notices] == [2]
    assert flush(receipts, reply.last_notice).notices == ()


def test_receipts_mute_ended_restarts_clock(
    receipts: Receipts, last_notice: str, redis_client: redis.Redis, context: Context
) -> None:
    turn_back(redis_client, 6_000, 2)
    run(context)
    redis_client.zincrby(WATCH.muted, -10_001, "2")
    assert run(context) == [((), (2,))]
    assert redis_client.zcard(WATCH.muted) == 0
    fresh = redis_client.zscore(WATCH.last_seen, "2")
    assert fresh is not None
    assert abs(fresh - redis_client.time()[0] * 1000) < 2_000 + LATE_S * 1000
    assert run(context) == []


def test_receipts_clock_set_back_mutes_no_node_longer(
    receipts: Receipts, last_notice: str, redis_client: redis.Redis, context: Context
) -> None:
    reply = flush(receipts, last_notice)
    redis_client.zadd(WATCH.muted, {"2": reply.now_ms + 3_600_000, "3": reply.now_ms + 5_000})
    assert run(context) == []
    left = {machine: redis_client.zscore(WATCH.muted, machine) for machine in ("2", "3")}
    assert left["2"] == pytest.approx(reply.now_ms + 2 * WATCH.timeout_ms, abs=1_000)
    assert left["3"] == reply.now_ms + 5_000


def test_receipts_flush_before_verdict_wins(
    receipts: Receipts, last_notice: str, redis_client: redis.Redis, context: Context
) -> None:
    turn_back(redis_client, 6_000, 2)
    flush(receipts, last_notice, {2: 100})
    assert run(context) == []


def test_receipts_flush_after_verdict_keeps_mute(
    receipts: Receipts, last_notice: str, redis_client: redis.Redis, context: Context
) -> None:
    turn_back(redis_client, 6_000, 2)
    run(context)
    flush(receipts, last_notice, {2: 0})
    assert redis_client.zrange(WATCH.last_seen, 0, -1) == [b"3"]


def test_receipts_flush_beside_verdict_is_before_or_after(
    receipts: Receipts, last_notice: str, redis_client: redis.Redis, redis_url: str
) -> None:
    """Either the flush wins and nothing happens, or the node is muted and announced, once."""
    other = Receipts(Settings(redis_url=redis_url))
    together = threading.Barrier(2)
    judged: list[tuple[Verdict, ...]] = []
    outcomes = set()

    def judge() -> None:
        together.wait(EVENTUALLY_S)
        judged.append(tuple(filter(None, other.judge([WATCH]))))

    for number in range(300):
        assert receipts.register(WATCH, RUN, [2, 3])
        turn_back(redis_client, 6_000, 2)
        announced = redis_client.xlen(keys.notices(1))
        job = threading.Thread(target=judge)
        job.start()
        together.wait(EVENTUALLY_S)
        if number % 3 == 0:
            time.sleep(0.0003)  # both orders are to be seen
        reply = flush(receipts, last_notice, {2: 50})
        job.join()
        muted = any(2 in verdict.muted for verdict in judged[-1])
        outcomes.add(muted)
        assert redis_client.xlen(keys.notices(1)) - announced == muted
        assert (redis_client.zscore(WATCH.muted, "2") is not None) == muted
        if not muted:
            assert redis_client.zscore(WATCH.last_seen, "2") == reply.now_ms - 50
    assert outcomes == {True, False}


def test_receipts_overlapping_jobs_give_each_verdict_once(
    receipts: Receipts, last_notice: str, redis_client: redis.Redis, redis_url: str
) -> None:
    many = list(range(10, 3_010))
    receipts.enroll(WATCH, many, [2, 3])
    turn_back(redis_client, 6_000, *many)
    done: list[Verdict] = []

    def job() -> None:
        done.extend(timeouts.run(Context(Settings(redis_url=redis_url))))

    jobs = [threading.Thread(target=job) for _ in range(4)]
    for thread in jobs:
        thread.start()
    for thread in jobs:
        thread.join()
    assert sorted(each for verdict in done for each in verdict.muted) == many
    assert redis_client.xlen(keys.notices(1)) == 3_000
    noticed: list[int] = []
    while found := flush(receipts, last_notice).notices:
        noticed += [notice.machine_id for notice in found]
        last_notice = found[-1].id
    assert sorted(noticed) == many


def test_receipts_one_job_checks_every_node_due(
    receipts: Receipts, last_notice: str, redis_client: redis.Redis, context: Context
) -> None:
    many = list(range(10, 2_510))
    receipts.enroll(WATCH, many, [2, 3])
    turn_back(redis_client, 6_000, *many)
    assert sorted(each for muted, _ in run(context) for each in muted) == many


def test_receipts_last_seen_is_time_of_arrival(
    receipts: Receipts, last_notice: str, redis_client: redis.Redis
) -> None:
    turn_back(redis_client, 60_000, 2)
    reply = flush(receipts, last_notice, {2: 1_234}, age_ms=200)
    assert redis_client.zscore(WATCH.last_seen, "2") == reply.now_ms - 1_234
    assert int(redis_client.hget(keys.modules(1), FLUSHED_AT) or 0) == reply.now_ms - 200


def test_receipts_older_time_does_not_set_clock_back(
    receipts: Receipts, last_notice: str, redis_client: redis.Redis
) -> None:
    flush(receipts, last_notice, {2: 0})
    before = redis_client.zscore(WATCH.last_seen, "2")
    flush(receipts, last_notice, {2: 4_000})
    assert redis_client.zscore(WATCH.last_seen, "2") == before


@pytest.mark.parametrize("gap_ms", [2_500, -2_500, None])
def test_receipts_gap_restarts_all_clocks(
    receipts: Receipts,
    last_notice: str,
    redis_client: redis.Redis,
    context: Context,
    gap_ms: int | None,
) -> None:
    turn_back(redis_client, 6_000, 2, 3)
    if gap_ms is None:
        redis_client.hdel(keys.modules(1), FLUSHED_AT)
    else:
        redis_client.hincrby(keys.modules(1), FLUSHED_AT, -gap_ms)
    reply = flush(receipts, last_notice, {2: 3_000})
    assert redis_client.zscore(WATCH.last_seen, "2") == reply.now_ms
    assert redis_client.zscore(WATCH.last_seen, "3") == reply.now_ms
    assert run(context) == []


def test_receipts_short_gap_counts_as_silence(
    receipts: Receipts, last_notice: str, redis_client: redis.Redis, context: Context
) -> None:
    turn_back(redis_client, 6_000, 2)
    redis_client.hincrby(keys.modules(1), FLUSHED_AT, -1_500)
    flush(receipts, last_notice)
    assert run(context) == [((2,), ())]


def test_receipts_instance_gone_mutes_no_node(
    receipts: Receipts, last_notice: str, redis_client: redis.Redis, context: Context
) -> None:
    turn_back(redis_client, 200_000, 2)
    redis_client.hincrby(keys.modules(1), FLUSHED_AT, -GONE_MS - 1)
    assert run(context) == []
    redis_client.hincrby(keys.modules(1), FLUSHED_AT, GONE_MS // 2)
    assert run(context) == [((2,), ())]


def test_receipts_instance_never_serving_mutes_no_node(
    receipts: Receipts, redis_client: redis.Redis, context: Context
) -> None:
    receipts.begin(1, RUN)
    receipts.register(WATCH, RUN, [2])
    turn_back(redis_client, 200_000, 2)
    assert run(context) == []


def test_receipts_timeout_0_never_ends(
    receipts: Receipts, last_notice: str, redis_client: redis.Redis, context: Context
) -> None:
    never = Watch(1, "ul", "ul", 1, 0)
    receipts.register(never, RUN, [2])
    redis_client.zadd(never.last_seen, {"2": 1})
    assert receipts.watches() == [WATCH]
    assert run(context) == []


def test_receipts_each_registration_has_own_clocks(
    receipts: Receipts, last_notice: str, redis_client: redis.Redis, context: Context
) -> None:
    second = Watch(1, "ratelimit#2", "ratelimit", 1, 500)
    receipts.register(second, RUN, [2, 3])
    redis_client.zincrby(second.last_seen, -1_000, "2")
    verdicts = timeouts.run(context)
    assert [(each.watch, each.muted) for each in verdicts] == [(second, (2,))]
    assert redis_client.zcard(WATCH.muted) == 0


def test_receipts_registration_starts_clocks_of_known_nodes(
    receipts: Receipts, last_notice: str, redis_client: redis.Redis, context: Context
) -> None:
    turn_back(redis_client, 6_000, 2)
    run(context)
    old = redis_client.xinfo_stream(keys.notices(1))["last-generated-id"].decode()
    assert receipts.begin(1, "next run") == old
    assert receipts.register(WATCH, "next run", [], members=[2, 4])
    assert redis_client.zrange(WATCH.last_seen, 0, -1) == [b"2"], "3 has left, 4 was never heard"
    assert not redis_client.exists(WATCH.muted)
    assert redis_client.ttl(WATCH.last_seen) == -1
    assert redis_client.smembers(keys.INSTANCES) == {b"1"}


def test_receipts_repeated_registration_ends_mutes(
    receipts: Receipts, last_notice: str, redis_client: redis.Redis, context: Context
) -> None:
    turn_back(redis_client, 6_000, 2)
    run(context)
    assert receipts.register(WATCH, RUN, [2, 3])
    assert redis_client.zcard(WATCH.muted) == 0
    assert redis_client.zcard(WATCH.last_seen) == 2


def test_receipts_modules_of_earlier_run_are_removed(
    receipts: Receipts, last_notice: str, redis_client: redis.Redis
) -> None:
    receipts.begin(1, "next run")
    assert receipts.watches() == []
    assert redis_client.ttl(WATCH.last_seen) > 3600, "kept for a registration that is made again"
    assert redis_client.hkeys(keys.modules(1)) == [b"run", b"begun"]


def test_receipts_replaced_run_changes_nothing(
    receipts: Receipts, last_notice: str, redis_client: redis.Redis
) -> None:
    receipts.begin(1, "next run")
    receipts.register(WATCH, "next run", [2])
    turn_back(redis_client, 3_000, 2)
    before = redis_client.zscore(WATCH.last_seen, "2")
    assert flush(receipts, last_notice, {2: 0}).state is FlushState.REPLACED
    assert not receipts.register(WATCH, RUN, [2])
    assert redis_client.zscore(WATCH.last_seen, "2") == before
    assert not redis_client.hexists(keys.modules(1), FLUSHED_AT)


@pytest.mark.parametrize("served", [True, False])
def test_receipts_ended_newer_run_blocks_no_other(
    receipts: Receipts, last_notice: str, redis_client: redis.Redis, served: bool
) -> None:
    receipts.begin(1, "next run")
    began = int(redis_client.hget(keys.modules(1), "begun") or 0)
    if served:
        redis_client.hset(
            keys.modules(1), mapping={FLUSHED_AT: began - GONE_MS + 5_000, "begun": 0}
        )
    assert flush(receipts, last_notice, {2: 0}).state is FlushState.REPLACED
    field = FLUSHED_AT if served else "begun"
    redis_client.hincrby(keys.modules(1), field, -GONE_MS)
    assert flush(receipts, last_notice, {2: 0}).state is FlushState.UNKNOWN


def test_receipts_redis_without_data_is_reported(
    receipts: Receipts, last_notice: str, redis_client: redis.Redis
) -> None:
    redis_client.flushall()
    assert flush(receipts, last_notice, {2: 0}).state is FlushState.UNKNOWN
    assert redis_client.keys("*") == []


def test_receipts_clocks_follow_nodes_added_and_removed(
    receipts: Receipts, last_notice: str, redis_client: redis.Redis, context: Context
) -> None:
    turn_back(redis_client, 6_000, 2)
    run(context)
    receipts.enroll(WATCH, [2, 4], [3])
    assert redis_client.zrange(WATCH.last_seen, 0, -1) == [b"4"]  # 2 is muted
    receipts.enroll(WATCH, [], [2, 4])
    assert redis_client.exists(WATCH.last_seen, WATCH.muted) == 0


def test_receipts_node_without_clock_is_not_recorded(
    receipts: Receipts, last_notice: str, redis_client: redis.Redis
) -> None:
    flush(receipts, last_notice, {9: 0})
    assert redis_client.zrange(WATCH.last_seen, 0, -1) == [b"2", b"3"]


def test_receipts_large_cluster_is_one_flush(
    receipts: Receipts, last_notice: str, redis_client: redis.Redis
) -> None:
    many = list(range(10, 10_010))
    receipts.enroll(WATCH, many, [2, 3])
    turn_back(redis_client, 60_000, many[0], many[-1])
    reply = flush(receipts, last_notice, dict.fromkeys(many, 7))
    assert redis_client.zscore(WATCH.last_seen, str(many[0])) == reply.now_ms - 7
    assert redis_client.zscore(WATCH.last_seen, str(many[-1])) == reply.now_ms - 7


def test_receipts_idle_tick_costs_same_for_any_nodes(
    receipts: Receipts, last_notice: str, redis_client: redis.Redis, context: Context
) -> None:
    for token in ("ratelimit", "dialog", "mine"):
        receipts.register(Watch(1, token, token, 1, 60_000), RUN, list(range(2, 10_002)))
    flush(receipts, last_notice)
    timeouts.run(context)
    before = redis_client.info("stats")["total_commands_processed"]
    assert timeouts.run(context) == []
    commands = redis_client.info("stats")["total_commands_processed"] - before
    assert commands <= 5


def test_receipts_verdicts_after_script_flush_go_on(
    receipts: Receipts, last_notice: str, redis_client: redis.Redis, context: Context
) -> None:
    turn_back(redis_client, 6_000, 2)
    redis_client.script_flush()
    assert run(context) == [((2,), ())]


def test_receipts_without_instances_do_nothing(redis_client: redis.Redis, context: Context) -> None:
    assert run(context) == []


def test_redis_down_raises_state_unavailable() -> None:
    nowhere = Settings(redis_url=f"redis://127.0.0.1:{free_port()}/0")
    receipts = Receipts(nowhere)
    for call in (
        lambda: timeouts.run(Context(nowhere)),
        lambda: receipts.begin(1, RUN),
        lambda: receipts.register(WATCH, RUN, [2]),
        lambda: receipts.enroll(WATCH, [2], []),
        lambda: receipts.judge([WATCH]),
        lambda: flush(receipts),
    ):
        with pytest.raises(StateUnavailable):
            call()


def test_judge_with_a_wrong_key_names_it_and_gives_no_verdict(
    receipts: Receipts, last_notice: str, redis_client: redis.Redis
) -> None:
    redis_client.set(WATCH.muted, "no sorted set")
    with collected() as found:
        assert not any(receipts.judge([WATCH]))
    assert [bad.key for bad in found] == [WATCH.muted]


def test_receipts_job_sees_silence_between_lists(
    receipts: Receipts, last_notice: str, redis_client: redis.Redis, context: Context
) -> None:
    """Registrations are listed again when their counter grows."""
    receipts.register(Watch(1, "short", "short", 1, 1000), RUN, [2])
    flush(receipts, last_notice)
    listed = redis_client.info("commandstats").get("cmdstat_hgetall", {"calls": 0})["calls"]
    assert timeouts.run(context) == []

    def muted() -> list[tuple[str, tuple[int, ...]]]:
        flush(receipts, last_notice)
        return [(v.watch.token, v.muted) for v in timeouts.run(context) if v.muted]

    assert wait_until(muted, EVENTUALLY_S, "silence is seen") == [("short", (2,))]
    receipts.register(Watch(1, "later", "later", 1, 500), RUN, [3])
    assert wait_until(muted, EVENTUALLY_S, "the new registration is seen") == [("later", (3,))]

    def released() -> list[str]:
        flush(receipts, last_notice)
        return [v.watch.token for v in timeouts.run(context) if v.released]

    assert wait_until(released, EVENTUALLY_S, "a mute ends")
    lists = redis_client.info("commandstats")["cmdstat_hgetall"]["calls"] - listed
    assert lists <= 30, "no list in each round"
