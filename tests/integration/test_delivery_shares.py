"""Many senders and several workers: leases stay where they are, and shares are fair."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import pytest
import redis

from clusterer import Settings
from clusterer.delivery import Engine
from clusterer.delivery.leases import Leases
from clusterer.delivery.session import SenderSession
from clusterer.membership import State
from clusterer.store import keys
from clusterer.store.packets import PacketLog
from clusterer.store.sessions import SessionStore
from tests.support.cluster import (
    CLUSTER,
    assert_accounted,
    at_rest,
    delivering,
    load,
    node,
    node_for,
    numbers,
    stat,
    take_lease,
)
from tests.support.frames import frame
from tests.support.processes import rounds, wait_until
from tests.support.receiver import BinReceiver

SETTINGS = {"linger": 30.0}


@pytest.fixture
def receiver() -> Iterator[BinReceiver]:
    with BinReceiver() as made:
        yield made


@contextmanager
def sending(settings: Settings, senders: range, pause_s: float = 0.002) -> Iterator[None]:
    """Let each sender send again and again."""
    logs = [PacketLog(settings, sender) for sender in senders]
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            for log, sender in zip(logs, senders, strict=True):
                log.append(CLUSTER, [frame(0, sender=sender)])
                stop.wait(pause_s)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def holders(client: redis.Redis, senders: range) -> list[Any]:
    """Return which worker has each sender."""
    return list(client.mget([keys.lease(sender) for sender in senders]))


def moves(client: redis.Redis, senders: range, during_s: float) -> tuple[int, int]:
    """Return how often a sender changed its worker, and how many once had none."""
    changes, unserved, before = 0, set(), holders(client, senders)
    for _ in rounds(during_s, 0.05):
        now = holders(client, senders)
        changes += sum(
            a is not None and b is not None and a != b for a, b in zip(before, now, strict=True)
        )
        unserved |= {sender for sender, one in zip(senders, now, strict=True) if one is None}
        before = [b or a for a, b in zip(before, now, strict=True)]
    return changes, len(unserved)


def has_shares(client: redis.Redis, senders: range, workers: int, least: int) -> Callable[[], bool]:
    """Whether all senders have a worker, and each worker at least so many of them."""

    def shared() -> bool:
        found = Counter(holders(client, senders))
        return None not in found and len(found) == workers and min(found.values()) >= least

    return shared


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_of_many_busy_senders_keep_them(
    settings: Settings, redis_client: redis.Redis, receiver: BinReceiver, workers: int
) -> None:
    senders = range(1001, 1161)
    # Nodes of their own keep the connections few: the test is about leases.
    load(settings, [*(node(s, state=State.DOWN) for s in senders), node_for(2, receiver)])
    with ExitStack() as stack:
        for _ in range(workers):
            stack.enter_context(delivering(settings))
        stack.enter_context(sending(settings, senders))
        wait_until(has_shares(redis_client, senders, workers, 61))
        wait_until(lambda: moves(redis_client, senders, 1.0) == (0, 0))
        assert moves(redis_client, senders, 5.0) == (0, 0)


def test_worker_that_joins_gets_its_share_and_no_more(
    settings: Settings, redis_client: redis.Redis, receiver: BinReceiver
) -> None:
    senders = range(1001, 1041)
    load(settings, [*(node(s, state=State.DOWN) for s in senders), node_for(2, receiver)])
    with ExitStack() as stack:
        stack.enter_context(delivering(settings))
        stack.enter_context(sending(settings, senders, 0.01))
        wait_until(has_shares(redis_client, senders, 1, 40))
        stack.enter_context(delivering(settings))
        wait_until(has_shares(redis_client, senders, 2, 15))
        wait_until(lambda: moves(redis_client, senders, 1.0) == (0, 0))
        assert moves(redis_client, senders, 3.0) == (0, 0)
        assert has_shares(redis_client, senders, 2, 15)()


def test_worker_that_ends_leaves_its_senders_to_the_other(
    settings: Settings, redis_client: redis.Redis, receiver: BinReceiver
) -> None:
    senders = range(1001, 1041)
    load(settings, [*(node(s, state=State.DOWN) for s in senders), node_for(2, receiver)])
    with ExitStack() as stack:
        stack.enter_context(delivering(settings))
        with delivering(settings):
            stack.enter_context(sending(settings, senders, 0.01))
            wait_until(has_shares(redis_client, senders, 2, 10))
        wait_until(has_shares(redis_client, senders, 1, 40))


def test_senders_that_are_not_taken_are_kept_afterwards(
    settings: Settings, redis_client: redis.Redis, receiver: BinReceiver
) -> None:
    senders = range(1001, 1031)
    load(settings, [*(node(s, state=State.DOWN) for s in senders), node_for(2, receiver)])
    with delivering(settings), sending(settings, senders, 0.01):
        wait_until(has_shares(redis_client, senders, 1, 30))
        idle = SessionStore(settings, settings.delivery_queue, "takes nothing")
        for _ in range(6):
            idle.share(0)
            assert moves(redis_client, senders, 1.0)[0] == 0
        assert moves(redis_client, senders, 1.0) == (0, 0)


def test_job_that_is_over_keeps_leases_and_connections(
    settings: Settings,
    redis_client: redis.Redis,
    receiver: BinReceiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("clusterer.delivery.engine.SLICE_S", 1.0)
    load(settings, [node(1), node_for(2, receiver)])
    log = PacketLog(settings, 1)
    engine = Engine(settings, settings.delivery_queue)
    log.append(CLUSTER, [frame(0)])
    for number in range(1, 4):
        assert engine.run(), "another run must follow"
        assert redis_client.exists(keys.lease(1))
        log.append(CLUSTER, [frame(number)])
    engine.run(slice_s=1.0)
    engine.close()
    assert at_rest(settings)
    assert numbers(receiver) == [0, 1, 2, 3]
    assert len(receiver.connections) == 1


def test_engine_that_is_closed_gives_back_what_it_kept(
    settings: Settings,
    redis_client: redis.Redis,
    receiver: BinReceiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("clusterer.delivery.engine.SLICE_S", 0.5)
    load(settings, [node(1), node_for(2, receiver)])
    PacketLog(settings, 1).append(CLUSTER, [frame(0)])
    engine = Engine(settings, settings.delivery_queue)
    assert engine.run()
    engine.close()
    assert at_rest(settings)
    assert numbers(receiver) == [0]
    assert not redis_client.sismember(keys.pending(settings.delivery_queue), "1")


def test_nodes_that_are_down_cost_no_records_per_packet(
    settings: Settings, redis_client: redis.Redis, receiver: BinReceiver
) -> None:
    down = range(101, 161)
    load(settings, [node(1), node_for(2, receiver), *(node(m, state=State.DOWN) for m in down)])
    log = PacketLog(settings, 1)
    with delivering(replace(settings, linger=1.0)):
        redis_client.config_resetstat()
        for number in range(50):
            log.append(CLUSTER, [frame(number)])
            receiver.wait_for_frames(number + 1)
        wait_until(lambda: at_rest(settings))
    counted = redis_client.info("commandstats")["cmdstat_hincrby"]["calls"]
    assert counted < 50 * 10, "each packet was counted for each node that is down"
    assert [stat(redis_client, machine, "skipped") for machine in down] == [50] * len(down)
    assert stat(redis_client, 2, "sent") == 50
    assert_accounted(settings)


def test_lease_that_ran_out_is_taken_again_unless_claimed_since(
    settings: Settings, redis_client: redis.Redis
) -> None:
    load(settings, [node(1), node(2)])
    PacketLog(settings, 1).append(CLUSTER, [frame(0)])
    first, second = (SessionStore(settings, settings.delivery_queue, name) for name in "ab")
    claim = take_lease(first, 1)
    assert claim is not None
    redis_client.delete(keys.lease(1))
    assert first.renew([1], {1: claim.number}).lost == set()
    assert redis_client.get(keys.lease(1)) == b"a"
    redis_client.delete(keys.lease(1))
    assert take_lease(second, 1)
    assert first.renew([1], {1: claim.number}).lost == {1}
    redis_client.delete(keys.lease(1))
    assert first.renew([1], {1: claim.number}).lost == {1}, "claimed since"
    assert first.renew([1]).lost == {1}


def slowed(act: Callable[..., None], slow: threading.Event) -> Callable[..., None]:
    """Return ``act`` that takes longer than a lease lives, once each time that ``slow`` is set."""

    def slowly(leases: Leases, sessions: Iterable[SenderSession], **how: bool) -> None:
        due = list(sessions)
        if due and slow.is_set():
            slow.clear()
            threading.Event().wait(1.5)
        act(leases, due, **how)

    return slowly


def test_worker_that_was_slow_keeps_senders_that_no_other_took(
    settings: Settings,
    redis_client: redis.Redis,
    receiver: BinReceiver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    load(settings, [node(1), node_for(2, receiver)])
    log = PacketLog(settings, 1)
    slow = threading.Event()
    monkeypatch.setattr(Leases, "commit", slowed(Leases.commit, slow))
    with delivering(settings):
        for number in range(3):
            log.append(CLUSTER, [frame(number)])
            receiver.wait_for_frames(number + 1)
            slow.set()
    assert "lease lost" not in caplog.text
    assert numbers(receiver) == [0, 1, 2]
    assert len(receiver.connections) == 1
