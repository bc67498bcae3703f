"""Packets that an unfinished hand-over may give back stay in the log, whatever workers trim."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import redis

from clusterer.services import Context
from clusterer.services.periodic import sweep
from clusterer.settings import Settings
from clusterer.store import keys
from clusterer.store.backlog import BacklogStore
from clusterer.store.deliveries import GUARD_MS, Commit, Move, Released
from clusterer.store.packets import PacketLog
from clusterer.store.sessions import SessionStore
from tests.support.cluster import (
    CLUSTER,
    assert_accounted,
    delivering,
    load,
    node,
    node_for,
    numbers,
    stat,
    take_lease,
)
from tests.support.frames import frame
from tests.support.processes import wait_until
from tests.support.receiver import BinReceiver

FIELD, OTHER = "1/2/7", "1/3/7"
"""Destinations of tests without nodes."""


SETTINGS = {"linger": 10.0, "send_timeout": 20.0}


def append(log: PacketLog, first: int, end: int, size: int = 300) -> None:
    """Append numbered frames, 50 in a piece."""
    for start in range(first, end, 50):
        log.append(CLUSTER, [frame(n, size=size) for n in range(start, min(start + 50, end))])


def append_slowly(log: PacketLog, first: int, end: int, fine: BinReceiver) -> None:
    """Append numbered frames, never many more than ``fine`` has received."""
    for start in range(first, end, 500):
        append(log, start, start + 500)
        fine.wait_for_frames(start + 500)


@contextmanager
def stuck_and_fine(settings: Settings) -> Iterator[tuple[PacketLog, BinReceiver, BinReceiver]]:
    """Provision node 2, which stops reading after its first packet, and node 3, which reads."""
    with BinReceiver(receive_buffer=4096) as stuck, BinReceiver() as fine:
        load(settings, [node(1), node_for(2, stuck), node_for(3, fine)])
        log = PacketLog(settings, 1)
        append(log, 0, 1)
        yield log, stuck, fine


def hand_over(settings: Settings, log: PacketLog, stuck: BinReceiver, fine: BinReceiver) -> None:
    """Have a worker write to the stuck peer until its kernel is full, and give the log back."""
    with delivering(settings) as engine:
        stuck.wait_for_frames(1)
        stuck.pause()
        append(log, 1, 500)
        append_slowly(log, 500, 3000, fine)
        engine.close = lambda: None  # type: ignore[method-assign] # its process goes on


@pytest.mark.parametrize("workers", [1, 3])
def test_trim_by_next_workers_keeps_what_guard_holds(
    settings: Settings, redis_client: redis.Redis, workers: int
) -> None:
    with stuck_and_fine(settings) as (log, stuck, fine):
        hand_over(settings, log, stuck, fine)
        assert redis_client.hlen(keys.closing(1)) >= 1
        for at in range(1, workers):
            with delivering(settings):
                append(log, 3000 * at, 3000 * at + 3000)
                fine.wait_for_frames(3000 * at + 3000)
        total = 3000 * workers + 3000
        with delivering(settings):
            append(log, total - 3000, total)
            fine.wait_for_frames(total)
            stuck.reset_connections()
            stuck.resume()
            wait_until(
                lambda: set(numbers(stuck)) >= set(range(50, total)), message="all given back"
            )
        assert stat(redis_client, 2, "lost") == 0
        wait_until(lambda: not redis_client.exists(keys.lease(1)), message="given back")
        assert_accounted(settings)


def test_idle_release_during_handover_keeps_then_empties_log(
    settings: Settings, redis_client: redis.Redis
) -> None:
    settings = replace(settings, linger=0.2)
    with stuck_and_fine(settings) as (log, stuck, _), delivering(settings):
        stuck.wait_for_frames(1)
        stuck.pause()
        append(log, 1, 100, size=1000)
        wait_until(lambda: redis_client.exists(keys.closing(1)), message="given back, and guarded")
        redis_client.sadd(keys.pending(settings.delivery_queue), 1)
        wait_until(lambda: redis_client.exists(keys.lease(1)), message="taken again")
        wait_until(lambda: not redis_client.exists(keys.lease(1)), message="given back again")
        assert redis_client.xlen(keys.log(1)) > 0
        stuck.reset_connections()
        stuck.resume()
        wait_until(lambda: not redis_client.exists(keys.closing(1)), message="closed")
        sweep.run(Context(settings))
        wait_until(lambda: set(numbers(stuck)) >= set(range(50, 100)), message="all given back")
        wait_until(lambda: not redis_client.xlen(keys.log(1)), message="the log is empty")
        assert stat(redis_client, 2, "lost") == 0
        assert_accounted(settings)
    assert not redis_client.exists(keys.HANDOVERS)


def test_idle_log_whose_peer_reads_late_is_emptied(
    settings: Settings, redis_client: redis.Redis
) -> None:
    settings = replace(settings, linger=0.2)
    with stuck_and_fine(settings) as (log, stuck, _), delivering(settings):
        stuck.wait_for_frames(1)
        stuck.pause()
        append(log, 1, 100, size=1000)
        wait_until(lambda: redis_client.exists(keys.closing(1)), message="given back, and guarded")
        assert redis_client.xlen(keys.log(1)) > 0
        stuck.resume()
        wait_until(lambda: not redis_client.exists(keys.closing(1)), message="closed")
        assert redis_client.xlen(keys.log(1)) == 0
        assert numbers(stuck) == list(range(100))
    assert not redis_client.exists(keys.HANDOVERS)


def test_log_cut_during_handover_counts_lost(settings: Settings, redis_client: redis.Redis) -> None:
    settings = replace(settings, log_max_packets=1000)
    with stuck_and_fine(settings) as (log, stuck, fine):
        hand_over(settings, log, stuck, fine)
        with delivering(settings):
            append_slowly(log, 3000, 6000, fine)
            stuck.reset_connections()
            stuck.resume()
            wait_until(lambda: 5999 in numbers(stuck), message="goes on")
        assert stat(redis_client, 2, "lost") > 0
        wait_until(lambda: not redis_client.exists(keys.lease(1)), message="given back")
        assert_accounted(settings)


class Workers:
    """Two workers' stores, and a log of 100 packets that both destinations have."""

    def __init__(self, settings: Settings, client: redis.Redis) -> None:
        self.client = client
        self.log = PacketLog(settings, 1)
        self.first, self.second = (
            SessionStore(settings, settings.delivery_queue, token) for token in ("one", "two")
        )
        self.log.append(CLUSTER, [frame(n) for n in range(50)])
        self.log.append(CLUSTER, [frame(n) for n in range(50, 100)])
        assert take_lease(self.first, 1)
        moves = [Move(FIELD, 100, 100), Move(OTHER, 100, 100)]
        self.first.commit([Commit(1, moves, {}, None)])

    def release(self, store: SessionStore, *, even_if_pending: bool = False) -> Released:
        """Release by a worker for which everything is written."""
        guarded = {FIELD: 60} if store is self.first else {}
        needed = 60 if store is self.first else 101
        return store.release(
            1, 100, needed, guarded, waiting=False, even_if_pending=even_if_pending
        )

    def take_over(self) -> None:
        """Let the second worker claim what the first one has released."""
        assert self.release(self.first, even_if_pending=True) is Released.DELIVERED
        self.client.sadd("clusterer:pending:clusterer-delivery", 1)
        claim = take_lease(self.second, 1)
        assert claim
        assert claim.guarded == {FIELD}

    def ids(self) -> list[int]:
        """Return the sequences of the log's entries."""
        entries: Any = self.client.xrange(keys.log(1))
        return [int(entry_id.split(b"-")[0]) for entry_id, _ in entries]


@pytest.fixture
def workers(settings: Settings, redis_client: redis.Redis) -> Workers:
    return Workers(settings, redis_client)


def test_release_after_unread_end_of_guard_keeps_log(workers: Workers) -> None:
    workers.take_over()
    assert workers.first.end_guard(1, FIELD, Move(FIELD, 59, 59), {})
    assert workers.second.commit([Commit(1, [], {}, 101)]) == set()
    assert workers.release(workers.second) is Released.KEPT
    assert workers.ids() == [100]
    (guards,) = workers.second.guards([1])
    assert (guards.up, guards.committed[FIELD]) == (frozenset(), 59)
    assert not workers.client.exists(keys.closing(1))


def test_release_even_if_pending_after_unread_end_stays_pending(workers: Workers) -> None:
    workers.take_over()
    assert workers.first.end_guard(1, FIELD, Move(FIELD, 59, 59), {})
    assert workers.release(workers.second, even_if_pending=True) is Released.PENDING
    assert workers.ids() == [100]
    claim = take_lease(workers.first, 1)
    assert claim
    assert (claim.guarded, claim.committed[FIELD]) == (frozenset(), 59)


def test_guards_read_by_other_worker_stay(workers: Workers) -> None:
    workers.take_over()
    assert workers.first.end_guard(1, FIELD, Move(FIELD, 59, 59), {})
    assert not workers.first.guards([1])[0].up
    assert workers.client.exists(keys.closing(1)), "the holder of the lease has not read it"


def test_renewed_guard_keeps_less(workers: Workers) -> None:
    assert workers.release(workers.first) is Released.DELIVERED
    assert workers.first.renew_guard(1, FIELD, 101)
    workers.client.sadd("clusterer:pending:clusterer-delivery", 1)
    assert take_lease(workers.second, 1)
    assert workers.release(workers.second) is Released.DELIVERED
    assert workers.ids() == []


def test_guard_of_older_worker_keeps_all(workers: Workers) -> None:
    workers.take_over()
    now = workers.client.time()[0] * 1000
    workers.client.hset(keys.closing(1), FIELD, f"{now + 2000} host:1:77")
    assert workers.release(workers.second) is Released.DELIVERED
    assert workers.ids() == [100]


@pytest.mark.parametrize("value", ["junk", "", "9 9 9 9", "x y z", "-1 a 5"])
def test_unreadable_guard_is_forgotten(workers: Workers, value: str) -> None:
    workers.take_over()
    workers.client.hset(keys.closing(1), FIELD, value)
    assert workers.second.guards([1])[0].up == frozenset()
    assert workers.release(workers.second) is Released.DELIVERED
    assert workers.ids() == []


def test_sweep_after_worker_died_empties_log(workers: Workers, settings: Settings) -> None:
    assert workers.release(workers.first) is Released.DELIVERED
    backlog = BacklogStore(settings)
    backlog.end_handovers()
    assert workers.ids() == [100]
    assert workers.client.smembers(keys.HANDOVERS) == {b"1"}
    time.sleep(GUARD_MS / 1000 + 0.1)  # Redis's clock, in which a guard ends
    backlog.end_handovers()
    assert workers.ids() == []
    assert not workers.client.exists(keys.closing(1), keys.HANDOVERS)
    assert workers.client.hgetall(keys.committed(1))[FIELD.encode()] == b"100"


def test_end_of_guard_without_lease_keeps_what_others_need(workers: Workers) -> None:
    assert workers.release(workers.first) is Released.DELIVERED
    workers.client.hset(keys.committed(1), OTHER, 99)
    assert workers.first.end_guard(1, FIELD, None, {})
    assert workers.ids() == [100]
