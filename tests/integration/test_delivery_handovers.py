"""Logs that change hands: guards, torn frames, workers that stand still."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from dataclasses import replace

import pytest
import redis

from clusterer.delivery.closer import Closer
from clusterer.delivery.handover import Handover
from clusterer.delivery.leases import Leases
from clusterer.delivery.link import Link
from clusterer.delivery.peer import Peer
from clusterer.delivery.peer_states import PeerState
from clusterer.services import Context
from clusterer.services.periodic import sweep
from clusterer.settings import Settings
from clusterer.store import keys
from clusterer.store.deliveries import GUARD_MS
from clusterer.store.packets import PacketLog
from clusterer.store.sessions import SessionStore
from tests.support.cluster import (
    CLUSTER,
    append,
    delivering,
    load,
    node,
    node_for,
    numbers,
    stat,
    take_lease,
)
from tests.support.frames import frame
from tests.support.processes import EVENTUALLY_S, wait_until
from tests.support.receiver import BinReceiver
from tests.support.scale import scaled
from tests.support.throttle import ThrottledReceiver

SETTINGS = {"linger": 0.3, "send_timeout": 1.0}


@pytest.mark.timeout(600)
def test_handover_of_four_workers_keeps_order_to_slow_reader(
    settings: Settings,
) -> None:
    total = scaled(20_000, 60_000)
    settings = replace(settings, send_timeout=5.0)
    with ThrottledReceiver(1_000_000) as slow, ExitStack() as stack:
        load(settings, [node(1), node(2, slow.port)])
        log = PacketLog(settings, 1)
        for _ in range(4):
            stack.enter_context(delivering(settings, slice_s=0.15))
        for start in range(0, total, 100):
            log.append(CLUSTER, [frame(n) for n in range(start, start + 100)])
        wait_until(lambda: len(slow.packets) >= total, 100, "everything read")
        got = [packet.fields().pop_int() for packet in slow.packets]
        assert slow.connections > 5, "there were hand-overs"
        assert not slow.errors
        assert got == list(range(total))


def test_closer_takes_peers_that_are_closing_already(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker must see at once that a peer which it released is not connected any more."""
    states: list[PeerState] = []
    take = Closer.take

    def note(self: Closer, sender: int, peers: list[Peer], asked_at: float) -> None:
        states.extend(peer.state for peer in peers)
        take(self, sender, peers, asked_at)

    monkeypatch.setattr(Closer, "take", note)
    with BinReceiver() as receiver:
        load(settings, [node(1), node_for(2, receiver)])
        with delivering(settings):
            PacketLog(settings, 1).append(CLUSTER, [frame(0)])
            receiver.wait_for_frames(1)
            wait_until(lambda: states, message="the log is released")
    assert states == [PeerState.CLOSING]


def test_closing_guard_lasts_while_peer_reads_within_timeout(
    settings: Settings, redis_client: redis.Redis
) -> None:
    """Longer than an unrenewed one: the next worker does not even connect before."""
    settings = replace(settings, send_timeout=10.0)
    with BinReceiver(receive_buffer=4096) as slow, BinReceiver() as fine:
        load(settings, [node(1), node_for(2, slow), node_for(3, fine)])
        log = PacketLog(settings, 1)
        with delivering(settings, slice_s=0.5), delivering(settings, slice_s=0.5):
            log.append(CLUSTER, [frame(0)])
            slow.wait_for_frames(1)
            slow.pause()
            log.append(CLUSTER, [frame(n, size=1000) for n in range(1, 200)])
            fine.wait_for_frames(200)
            wait_until(
                lambda: redis_client.hlen(keys.closing(1)) == 1, message="the slow one is guarded"
            )
            log.append(CLUSTER, [frame(n) for n in range(200, 300)])
            fine.wait_for_frames(300)
            time.sleep(2.5 * GUARD_MS / 1000)
            assert len(slow.connections) == 1
            slow.resume()
            slow.wait_for_frames(300)
    assert numbers(slow) == numbers(fine) == list(range(300))
    assert len(slow.connections) > 1


def test_handover_bytes_discarded_by_peer_are_sent_again(
    settings: Settings, redis_client: redis.Redis
) -> None:
    """All bytes are written, the log released; then the peer resets with most bytes unread."""
    settings = replace(settings, linger=0.2, send_timeout=10.0)
    with BinReceiver(receive_buffer=4096) as peer, delivering(settings):
        load(settings, [node(1), node_for(2, peer)])
        peer.pause()
        PacketLog(settings, 1).append(CLUSTER, [frame(n, size=1000) for n in range(100)])
        wait_until(lambda: redis_client.exists(keys.closing(1)), message="given back, and guarded")
        wait_until(lambda: not redis_client.exists(keys.lease(1)), message="given back")
        assert stat(redis_client, 2, "sent") == 100
        peer.reset_connections()
        peer.resume()
        wait_until(lambda: not redis_client.exists(keys.closing(1)), message="closed")
        sweep.run(Context(settings))
        wait_until(lambda: set(range(90, 100)) <= set(numbers(peer)), message="delivered again")
        wait_until(lambda: stat(redis_client, 2, "sent") == 100, message="and counted once")


def test_closing_guard_taken_away_logs_possible_loss(
    settings: Settings, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    settings = replace(settings, linger=0.2, send_timeout=10.0)
    with BinReceiver(receive_buffer=4096) as peer, delivering(settings):
        load(settings, [node(1), node_for(2, peer)])
        peer.pause()
        PacketLog(settings, 1).append(CLUSTER, [frame(n, size=1000) for n in range(100)])
        wait_until(lambda: redis_client.exists(keys.closing(1)), message="given back, and guarded")
        redis_client.delete(keys.closing(1))
        wait_until(lambda: "to 100 may not have arrived at node" in caplog.text, message="said")


def test_handover_during_stalled_frame_keeps_it_whole(settings: Settings) -> None:
    total = 2000
    with BinReceiver(receive_buffer=4096) as peer, ExitStack() as stack:
        load(settings, [node(1), node_for(2, peer)])
        log = PacketLog(settings, 1)
        for _ in range(2):
            stack.enter_context(delivering(settings, slice_s=0.3))
        for start in range(0, total, 50):
            log.append(CLUSTER, [frame(n, size=4096) for n in range(start, start + 50)])
            peer.pause()
            time.sleep(0.05)
            peer.resume()
        peer.wait_for_frames(total)
    assert [c.error for c in peer.connections] == [None] * len(peer.connections)
    assert not any(c.has_partial_frame for c in peer.connections)
    assert numbers(peer) == list(range(total))
    assert len(peer.connections) > 1


def test_handover_from_stopped_worker_ends_its_writes(
    settings: Settings, redis_client: redis.Redis
) -> None:
    """The test removes the lease, as after a stop of the worker; the worker must not write then."""
    settings = replace(settings, linger=30.0)
    with BinReceiver() as peer:
        load(settings, [node(1), node_for(2, peer)])
        log = PacketLog(settings, 1)
        with delivering(settings):
            log.append(CLUSTER, [frame(0)])
            peer.wait_for_frames(1)
            wait_until(lambda: redis_client.hlen(keys.committed(1)), message="offset recorded")
            thief = SessionStore(settings, settings.delivery_queue, "thief")
            redis_client.delete(keys.lease(1))
            assert take_lease(thief, 1) is not None
            keep = threading.Event()

            def renew() -> None:
                while not keep.wait(0.2):
                    thief.renew([1])

            thread = threading.Thread(target=renew)
            thread.start()
            time.sleep(1.1)
            log.append(CLUSTER, [frame(1)])
            time.sleep(1.0)
            seen = numbers(peer)
            committed = redis_client.hgetall(keys.committed(1))
            keep.set()
            thread.join()
            redis_client.delete(keys.lease(1))
            peer.wait_for_frames(2)
    assert seen == [0]
    assert [int(value) for value in committed.values()] == [1]


def test_handover_worker_paused_before_write_does_not_write(
    settings: Settings, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its look at the socket and the write the lease runs out and another takes over."""
    settings = replace(settings, linger=30.0, send_timeout=10.0)
    standing, going_on = threading.Event(), threading.Event()
    real_check = Link.check

    def check(link: Link) -> None:
        real_check(link)
        if standing.is_set():
            going_on.wait(EVENTUALLY_S)

    monkeypatch.setattr(Link, "check", check)
    with BinReceiver(receive_buffer=4096) as peer:
        load(settings, [node(1), node_for(2, peer)])
        log = PacketLog(settings, 1)
        with delivering(settings):
            log.append(CLUSTER, [frame(0)])
            peer.wait_for_frames(1)
            peer.pause()
            append(log, [frame(n, size=1000) for n in range(1, 2001)])
            wait_until(lambda: offset_of(redis_client) > 1, message="begun")
            standing.set()
            peer.resume()  # the socket takes more: the worker looks at it, and stands still
            thief = SessionStore(settings, settings.delivery_queue, "thief")
            wait_until(lambda: take_lease(thief, 1), message="the lease has run out")
            wait_until(lambda: rests(peer), message="what the kernel had has arrived")
            before = len(peer.connections[0].data)
            standing.clear()
            going_on.set()
            wait_until(lambda: peer.connections[0].ended, message="connection closed")
            assert len(peer.connections[0].data) == before
            assert offset_of(redis_client) < 2001, "and moves no offset"
            wait_until(lambda: set(numbers(peer)) == set(range(2001)), message="goes on later")


def offset_of(client: redis.Redis) -> int:
    """Return the only committed offset that there is."""
    return next((int(value) for value in client.hvals(keys.committed(1))), 0)


def rests(peer: BinReceiver) -> bool:
    before = len(peer.connections[0].data)
    time.sleep(0.2)
    return len(peer.connections[0].data) == before


def test_handover_of_lease_lost_while_idle_is_left_alone(
    settings: Settings, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another worker takes the lease just before this one gives back the idle log."""
    thief = SessionStore(settings, settings.delivery_queue, "thief")
    stolen = threading.Event()
    real_renew, real_poll = Leases.renew, Handover.poll_idle

    def poll(handover: Handover) -> None:
        if stolen.is_set():
            real_poll(handover)
            return
        redis_client.delete(keys.lease(1))
        assert take_lease(thief, 1)
        handover.idle_poll_at = 0.0
        time.sleep(settings.linger)
        stolen.set()
        real_poll(handover)

    def renew(leases: Leases, *, force: bool = False) -> None:
        real_renew(leases, force=force or stolen.is_set())

    with BinReceiver() as peer:
        load(settings, [node(1), node_for(2, peer)])
        log = PacketLog(settings, 1)
        with delivering(settings):
            log.append(CLUSTER, [frame(0)])
            peer.wait_for_frames(1)
            monkeypatch.setattr(Leases, "renew", renew)
            monkeypatch.setattr(Handover, "poll_idle", poll)
            wait_until(stolen.is_set, message="the lease is another worker's")
            log.append(CLUSTER, [frame(1)])
            redis_client.delete(keys.lease(1))
            wait_until(lambda: set(numbers(peer)) == {0, 1}, message="the worker goes on")
