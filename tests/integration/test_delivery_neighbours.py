"""Peers that never read, cannot be reached, or reset: the others do not feel them."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest
import redis

from clusterer import StateUnavailable
from clusterer.delivery.read_pace import READ_BYTES
from clusterer.membership import Event, Node, State
from clusterer.settings import Settings
from clusterer.store import Cause, NodeStore, keys
from clusterer.store.packets import PacketLog
from clusterer.store.sessions import SessionStore
from clusterer.wire import FrameDecoder
from tests.support.cluster import CLUSTER, append, delivering, load, node, node_for, stat
from tests.support.frames import frame
from tests.support.processes import EVENTUALLY_S, LATE_S, wait_until
from tests.support.receiver import BinReceiver

BAD = (11, 12, 13)
SEND_TIMEOUT_S = 2 * LATE_S
"""After this time a bad peer has failed: twice the longest time that a packet for a good node may
take on a busy host."""
BURST = 10_000
"""Packets that are sent at once first, 2 MB: more than the sockets of a bad peer take."""
PACKETS_AFTER = 100
"""Packets that are sent after each bad peer has failed: the bad peers have connected again."""


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
def bad_peers() -> Iterator[tuple[list[Node], BinReceiver]]:
    """Give a node that never reads, one that never answers, and one that resets its connections.

    The receiver is that of the last node.
    """
    with (
        BinReceiver(receive_buffer=4096) as stuck,
        unroutable() as port,
        BinReceiver() as resetting,
    ):
        stuck.pause()
        yield [node_for(11, stuck), node(12, port), node_for(13, resetting)], resetting


@contextmanager
def set_up_again(settings: Settings, resetting: BinReceiver) -> Iterator[None]:
    """Set the bad nodes up again and again, and reset the connections of one of them."""
    stop, store = threading.Event(), NodeStore(settings)

    def work() -> None:
        while not stop.wait(0.1):
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


def send_until_failed(log: PacketLog, client: redis.Redis) -> list[float]:
    """Send packets until each bad peer has failed, and more; return the time of each call."""
    sent_at = [time.monotonic()] * BURST
    append(log, [frame(number) for number in range(BURST)])

    def send() -> bool:
        sent_at.append(time.monotonic())
        log.append(CLUSTER, [frame(len(sent_at) - 1)])
        return all(stat(client, machine, "failed") for machine in BAD)

    wait_until(send, SEND_TIMEOUT_S + EVENTUALLY_S, "each bad peer has failed")
    for _ in range(PACKETS_AFTER):
        send()
    return sent_at


def arrivals(receiver: BinReceiver) -> dict[int, float]:
    """Return when each numbered packet arrived first (monotonic seconds)."""
    found: dict[int, float] = {}
    for connection in receiver.connections:
        decoder = FrameDecoder()
        for at, chunk in list(connection.chunks):
            for packet in decoder.feed(chunk):
                found.setdefault(packet.fields().pop_int() or 0, at)
    return found


def longest_delay(receiver: BinReceiver, sent_at: list[float]) -> float:
    """Return the longest time (seconds) from the call to the arrival of a packet."""
    wait_until(lambda: len(arrivals(receiver)) == len(sent_at), message="all packets")
    return max(at - sent_at[number] for number, at in arrivals(receiver).items())


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


@pytest.mark.serial  # all threads are in one process: a busy host delays them by seconds
@pytest.mark.slow
@pytest.mark.parametrize("backlog", ["drop", "replay"])
def test_delivery_never_waits_for_timeouts_of_bad_peers(
    redis_client: redis.Redis, redis_url: str, backlog: str
) -> None:
    """The bad peers fail by each timeout, and what they missed is replayed, beside good nodes."""
    settings = Settings(
        redis_url=redis_url, linger=30.0, send_timeout=SEND_TIMEOUT_S, backlog=backlog
    )
    with ExitStack() as stack:
        good = [stack.enter_context(BinReceiver()) for _ in range(3)]
        bad, resetting = stack.enter_context(bad_peers())
        load(settings, [node(1), *(node_for(m, r) for m, r in enumerate(good, 2)), *bad])
        log = PacketLog(settings, 1)
        stack.enter_context(delivering(settings))
        with set_up_again(settings, resetting):
            sent_at = send_until_failed(log, redis_client)
            delays = [longest_delay(receiver, sent_at) for receiver in good]
    assert max(delays) < LATE_S, delays
