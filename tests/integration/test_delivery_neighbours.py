"""Peers that never read, cannot be reached, or reset: the others do not feel them."""

from __future__ import annotations

import socket
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest
import redis

from clusterer import StateUnavailable
from clusterer.delivery.read_pace import READ_BYTES
from clusterer.membership import Event, State
from clusterer.settings import Settings
from clusterer.store import Cause, NodeStore, keys
from clusterer.store.packets import PacketLog
from clusterer.store.sessions import SessionStore
from tests.support.cluster import CLUSTER, append, delivering, load, node, node_for, stat
from tests.support.frames import frame
from tests.support.processes import wait_until
from tests.support.receiver import BinReceiver

LEAST_ROUNDS, MOST_ROUNDS, PACKETS, PAUSE_S = 3, 9, 300, 0.005
BAD = (11, 12, 13)
SLACK_S = 0.002
"""Latency that another process on the same host may add."""


@contextmanager
def unroutable() -> Iterator[int]:
    """Give a port whose SYNs get no answer: the queue of its listener is full."""
    with ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        yield full.getsockname()[1]


@contextmanager
def trouble(settings: Settings, resetting: BinReceiver) -> Iterator[None]:
    """Set the bad nodes up again and again, and reset the connections of one of them."""
    stop, store = threading.Event(), NodeStore(settings)

    def work() -> None:
        while not stop.wait(0.02):
            resetting.reset_connections()
            for machine in BAD:
                with suppress(StateUnavailable):
                    store.command(CLUSTER, machine, Event.SET_UP, Cause("test"))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def burst(log: PacketLog, good: list[BinReceiver]) -> None:
    """Send more than the stuck peer's buffers take."""
    sizes = [len(receiver.connections[0].data) for receiver in good]
    log.append(CLUSTER, [frame(0, size=1000)] * 500)
    for receiver, before in zip(good, sizes, strict=True):
        wait_until(
            lambda r=receiver, n=before: len(r.connections[0].data) == n + 500_000,  # type: ignore[misc]
            message="burst taken",
        )


def latency_p99(settings: Settings, log: PacketLog, good: list[BinReceiver]) -> float:
    """Send steadily; return the 99th percentile of the seconds from call to arrival."""
    sizes = [len(r.connections[0].data) if r.connections else 0 for r in good]
    sent_at = []
    for number in range(PACKETS):
        sent_at.append(time.monotonic())
        log.append(CLUSTER, [frame(number)])
        time.sleep(PAUSE_S)
    found: list[float] = []
    for receiver, before in zip(good, sizes, strict=True):
        whole = before + PACKETS * len(frame(0))
        receiver.wait_for_connections(1)
        (connection,) = receiver.connections
        wait_until(lambda c=connection, n=whole: len(c.data) >= n, message="all there")  # type: ignore[misc]
        end = 0
        for at, chunk in connection.chunks:
            first = max(end - before, 0) // len(frame(0))
            end += len(chunk)
            last = max(end - before, 0) // len(frame(0))
            found += [at - sent for sent in sent_at[first:last]]
    return statistics.quantiles(found, n=100)[98]


def test_delivery_node_far_behind_delays_no_node_less_behind(
    redis_client: redis.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clusterer.store.append_commands.MAX_ENTRY", 1)  # an entry per packet
    settings = Settings(redis_url=redis_url, linger=30.0, backlog_max_age=600.0)
    offsets = {2: 0, 3: 57_000, 4: 60_000}
    with ExitStack() as stack:
        receivers = {machine: stack.enter_context(BinReceiver()) for machine in offsets}
        load(settings, [node(1), *(node_for(m, r) for m, r in receivers.items())])
        log = PacketLog(settings, 1)
        for _ in range(60):
            log.append(CLUSTER, [frame(0)] * 1000)
        nodes = NodeStore(settings).view(CLUSTER).nodes
        for machine, place in offsets.items():
            for name in (keys.committed, keys.committed_count):
                redis_client.hset(name(1), nodes[machine].destination, str(place))
        stack.enter_context(delivering(settings))
        receivers[2].wait_for_frames(60_000)
        receivers[3].wait_for_frames(3_000)
        (far,), (near,) = receivers[2].connections, receivers[3].connections
        had = sum(len(chunk) for at, chunk in far.chunks if at <= near.chunks[-1][0])
    assert had < 0.5 * len(far.data)


def test_delivery_catch_up_read_is_bounded_in_bytes(
    redis_client: redis.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_all, sizes = SessionStore.read_all, []

    def noted(store: SessionStore, *where: Any) -> Any:
        found, versions = read_all(store, *where)
        sizes.append(sum(len(fields[-1]) for entries in found for _, fields in entries))
        return found, versions

    monkeypatch.setattr(SessionStore, "read_all", noted)
    settings = Settings(redis_url=redis_url, linger=30.0, backlog="replay")
    with BinReceiver() as late, BinReceiver() as other:
        nodes = [node(1), node_for(2, late, state=State.DOWN), node_for(3, other)]
        load(settings, nodes)
        log = PacketLog(settings, 1)
        with delivering(settings):
            append(log, [frame(0, size=60_000)] * 300)
            for number in range(301, 316):  # so the front reads many at once from now on
                log.append(CLUSTER, [frame(0)])
                other.wait_for_frames(number)
            sizes.clear()
            NodeStore(settings).command(CLUSTER, 2, Event.SET_UP, Cause("test"))
            late.wait_for_frames(315)
    assert max(sizes) < 4 * READ_BYTES


@pytest.mark.serial
@pytest.mark.slow
def test_delivery_bad_peers_do_not_double_latency_of_others(
    redis_client: redis.Redis, redis_url: str
) -> None:
    settings = Settings(redis_url=redis_url, linger=30.0, send_timeout=0.5)
    with ExitStack() as stack:
        good = [stack.enter_context(BinReceiver()) for _ in range(3)]
        stuck = stack.enter_context(BinReceiver(receive_buffer=4096))
        resetting = stack.enter_context(BinReceiver())
        port = stack.enter_context(unroutable())
        stuck.pause()
        well = [node(1), *(node_for(m, r) for m, r in enumerate(good, 2))]
        bad = [node_for(11, stuck), node(12, port), node_for(13, resetting)]
        log = PacketLog(settings, 1)
        stack.enter_context(delivering(settings))
        alone: list[float] = []
        beside: list[float] = []

        def doubled() -> bool:
            return min(beside) >= 2 * statistics.median(alone) + SLACK_S

        # A busy machine spoils rounds of both kinds; what a bad peer costs is in each beside it.
        while len(alone) < LEAST_ROUNDS or (doubled() and len(alone) < MOST_ROUNDS):
            load(settings, well)
            alone.append(latency_p99(settings, log, good))
            load(settings, [*well, *bad])
            burst(log, good)
            with trouble(settings, resetting):
                beside.append(latency_p99(settings, log, good))
            assert all(stat(redis_client, machine, "failed") for machine in BAD)
        assert all(len(receiver.connections) == 1 for receiver in good)
    assert not doubled(), (alone, beside)
