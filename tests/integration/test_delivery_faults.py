"""Delivery under attack: hand-overs, torn frames, vanished hosts, membership in mid-stream."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest
import redis

from clusterer import StateUnavailable, jobs
from clusterer.delivery import Engine
from clusterer.delivery.link import Link
from clusterer.membership import Condition, Event, Node
from clusterer.services import Context, sweep
from clusterer.settings import Settings
from clusterer.store import Cause, NodeStore, keys
from clusterer.store.deliveries import FENCE_MS
from clusterer.store.drains import DrainStore
from clusterer.store.packets import PacketLog
from tests.support.cluster import CLUSTER, delivering, frame, load, node, node_for, numbers, stat
from tests.support.processes import wait_until
from tests.support.receiver import BinReceiver, ReceivedConnection
from tests.support.redis_server import RedisServer
from tests.support.scale import scaled
from tests.support.throttle import ThrottledReceiver
from workers import runtime
from workers.worker import Worker

IP = shutil.which("ip", path=f"{os.environ['PATH']}:/usr/sbin:/sbin") or ""


@pytest.fixture
def settings(redis_client: redis.Redis, redis_url: str) -> Settings:
    return Settings(redis_url=redis_url, linger=0.3, send_timeout=1.0)


def read_node(settings: Settings, machine_id: int) -> Node:
    found, _ = NodeStore(settings).read(CLUSTER, machine_id)
    assert found is not None
    return found


@pytest.mark.timeout(300)
def test_four_workers_with_short_slices_keep_order_to_a_throttled_reader(
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


def test_a_fence_stands_as_long_as_a_peer_within_send_timeout_needs(
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
            log.append(CLUSTER, [frame(n, 1000) for n in range(1, 200)])
            fine.wait_for_frames(200)
            wait_until(lambda: redis_client.hlen(keys.fence(1)) == 1, 5, "the slow one is fenced")
            log.append(CLUSTER, [frame(n) for n in range(200, 300)])
            fine.wait_for_frames(300, 2)
            time.sleep(2.5 * FENCE_MS / 1000)
            assert len(slow.connections) == 1
            slow.resume()
            slow.wait_for_frames(300)
    assert numbers(slow) == numbers(fine) == list(range(300))
    assert len(slow.connections) > 1


def test_what_a_peer_threw_away_after_the_log_was_given_back_is_delivered_again(
    settings: Settings, redis_client: redis.Redis
) -> None:
    """All was written, the log idle and released; then the peer resets with most of it unread."""
    settings = replace(settings, linger=0.2, send_timeout=10.0)
    with BinReceiver(receive_buffer=4096) as peer, delivering(settings):
        load(settings, [node(1), node_for(2, peer)])
        peer.pause()
        PacketLog(settings, 1).append(CLUSTER, [frame(n, 1000) for n in range(100)])
        wait_until(lambda: redis_client.exists(keys.fence(1)), 5, "given back, and fenced")
        wait_until(lambda: not redis_client.exists(keys.lease(1)), 5, "given back")
        assert stat(redis_client, 2, "sent") == 100
        peer.reset_connections()
        peer.resume()
        wait_until(lambda: not redis_client.exists(keys.fence(1)), 5, "closed")
        sweep.run(Context(settings))
        wait_until(lambda: set(range(90, 100)) <= set(numbers(peer)), 3, "delivered again")
        wait_until(lambda: stat(redis_client, 2, "sent") == 100, 5, "and counted once")


def test_what_may_not_have_arrived_when_a_fence_was_taken_away_is_said(
    settings: Settings, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    settings = replace(settings, linger=0.2, send_timeout=10.0)
    with BinReceiver(receive_buffer=4096) as peer, delivering(settings):
        load(settings, [node(1), node_for(2, peer)])
        peer.pause()
        PacketLog(settings, 1).append(CLUSTER, [frame(n, 1000) for n in range(100)])
        wait_until(lambda: redis_client.exists(keys.fence(1)), 5, "given back, and fenced")
        redis_client.delete(keys.fence(1))
        wait_until(lambda: "to 100 of machine 1 may not have arrived" in caplog.text, 5, "said")


def test_a_frame_in_which_the_reader_stalls_is_never_torn(settings: Settings) -> None:
    total = 2000
    with BinReceiver(receive_buffer=4096) as peer, ExitStack() as stack:
        load(settings, [node(1), node_for(2, peer)])
        log = PacketLog(settings, 1)
        for _ in range(2):
            stack.enter_context(delivering(settings, slice_s=0.3))
        for start in range(0, total, 50):
            log.append(CLUSTER, [frame(n, 4096) for n in range(start, start + 50)])
            peer.pause()
            time.sleep(0.05)
            peer.resume()
        peer.wait_for_frames(total, 30)
    assert [c.error for c in peer.connections] == [None] * len(peer.connections)
    assert not any(c.has_partial_frame for c in peer.connections)
    assert numbers(peer) == list(range(total))
    assert len(peer.connections) > 1


def test_a_vanished_host_has_failed_within_send_timeout_and_a_second(
    settings: Settings, redis_client: redis.Redis
) -> None:
    settings = replace(settings, send_timeout=2.0)
    with other_host("10.213.7.1", "10.213.7.2") as (run_there, vanish):
        peer = run_there()
        load(settings, [node(1, host="10.213.7.1"), node(2, peer, host="10.213.7.2")])
        log = PacketLog(settings, 1)
        with delivering(settings):
            for number in range(10):
                log.append(CLUSTER, [frame(number)])
                time.sleep(0.1)
            wait_until(lambda: stat(redis_client, 2, "sent") == 10, 3, "sent")
            vanish()
            vanished_at = time.monotonic()
            number = 10
            while read_node(settings, 2).condition is Condition.UP:
                assert time.monotonic() < vanished_at + 4.0, "still up"
                log.append(CLUSTER, [frame(number)])
                number += 1
                time.sleep(0.1)
            took = time.monotonic() - vanished_at
            wait_until(
                lambda: stat(redis_client, 2, "sent") + stat(redis_client, 2, "skipped") == number,
                5,
                "every packet is accounted for",
            )
    assert took <= settings.send_timeout + 1.0
    assert stat(redis_client, 2, "sent") == 10, "what the vanished host never acknowledged counts"


@contextlib.contextmanager
def other_host(
    here: str, there: str, count_to: int = 0
) -> Iterator[tuple[Callable[[], int], Callable[[], None]]]:
    """Give another host in a network namespace: start a listener there, take its address away.

    At the end the host is gone as one that is switched off. With ``count_to`` it must have got
    exactly so many frames by then.
    """
    if os.geteuid() != 0 or not IP:
        pytest.skip("network namespaces need root and iproute2")
    name = f"clusterer-{os.getpid()}"
    link = f"cl{os.getpid() % 100000}"

    def ip(*words: str) -> None:
        subprocess.run([IP, *words], check=True, capture_output=True)

    try:
        ip("netns", "add", name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr.decode()}")
    process: list[subprocess.Popen[str]] = []
    try:
        ip("link", "add", link, "type", "veth", "peer", "name", f"{link}p", "netns", name)
        ip("addr", "add", f"{here}/24", "dev", link)
        ip("link", "set", link, "up")
        ip("-n", name, "addr", "add", f"{there}/24", "dev", f"{link}p")
        ip("-n", name, "link", "set", f"{link}p", "up")

        def listen() -> int:
            code = (
                "import socket\n"
                f"s = socket.create_server(('{there}', 5566))\n"
                "print('ready', flush=True)\n"
                "c = s.accept()[0]\n"
                "while chunk := c.recv(65536): print(len(chunk), flush=True)\n"
            )
            one = subprocess.Popen(
                [IP, "netns", "exec", name, sys.executable, "-c", code],
                stdout=subprocess.PIPE,
                text=True,
            )
            process.append(one)
            assert one.stdout is not None
            assert one.stdout.readline() == "ready\n"
            return 5566

        yield listen, lambda: ip("-n", name, "addr", "del", f"{there}/24", "dev", f"{link}p")
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            ip("link", "del", link)
        got = 0
        for one in process:
            one.kill()
            got += sum(map(int, one.communicate()[0].split()))
        ip("netns", "del", name)
    assert not count_to or got == count_to * len(frame())


def test_a_host_that_was_switched_off_and_on_gets_the_next_packet_once(
    settings: Settings, redis_client: redis.Redis
) -> None:
    """No FIN ever came: the first write meets a reset, and what it carried is written again."""
    settings = replace(settings, send_timeout=2.0, linger=30.0)
    addresses = "10.213.7.1", "10.213.7.2"
    with ExitStack() as stack:
        with other_host(*addresses, count_to=3) as (run_there, _):
            load(settings, [node(1, host=addresses[0]), node(2, run_there(), host=addresses[1])])
            log = PacketLog(settings, 1)
            stack.enter_context(delivering(settings))
            for number in range(3):
                log.append(CLUSTER, [frame(number)])
            wait_until(lambda: stat(redis_client, 2, "sent") == 3, 3, "sent")
        with other_host(*addresses, count_to=2) as (run_there, _):
            time.sleep(1.1)  # older than a connection whose end counts against the node
            run_there()
            log.append(CLUSTER, [frame(3)])
            log.append(CLUSTER, [frame(4)])
            wait_until(lambda: stat(redis_client, 2, "sent") == 5, 5, "sent")
            assert stat(redis_client, 2, "failed") == 0
    assert read_node(settings, 2).no_tries == 0


def test_a_peer_that_closes_idle_connections_never_fails(
    settings: Settings, redis_client: redis.Redis
) -> None:
    settings = replace(settings, linger=10.0)
    with BinReceiver() as peer:
        load(settings, [node(1), node_for(2, peer)])
        log = PacketLog(settings, 1)
        with delivering(settings):
            for number in range(3):
                log.append(CLUSTER, [frame(number)])
                peer.wait_for_frames(number + 1)
                time.sleep(1.2)
                peer.close_connections()
                wait_until(lambda: not peer.open_connections, 5, "closed")
    assert numbers(peer) == [0, 1, 2]
    assert stat(redis_client, 2, "failed") == 0
    assert read_node(settings, 2).no_tries == 0


class Slamming(BinReceiver):
    """Ends each connection with a reset as soon as something has arrived, ``times`` times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.left = times

    def _read(self, connection: ReceivedConnection) -> None:
        super()._read(connection)
        if connection.packets and self.left:
            self.left -= 1
            self.reset_connections()


@pytest.mark.parametrize(("times", "failures"), [(1, 0), (1000, 1)])
def test_a_young_connection_that_ends_once_is_made_again_and_twice_is_a_failure(
    settings: Settings, redis_client: redis.Redis, times: int, failures: int
) -> None:
    with Slamming(times) as peer, delivering(replace(settings, linger=30.0)):
        load(settings, [node(1), node_for(2, peer, failed_attempts=9)])
        log = PacketLog(settings, 1)
        for number in range(10):
            log.append(CLUSTER, [frame(number)])
            wait_until(lambda n=number: settled(redis_client) == n + 1, 5, "on its way or skipped")  # type: ignore[misc]
            wait_until(lambda: times == 1 or not peer.open_connections, 5, "slammed")
        assert stat(redis_client, 2, "failed") == failures
        assert read_node(settings, 2).no_tries == failures


def settled(client: redis.Redis) -> int:
    return stat(client, 2, "sent") + stat(client, 2, "skipped")


def test_an_unroutable_peer_fails_in_time_and_delays_nobody(settings: Settings) -> None:
    with socket.socket() as full, BinReceiver() as alive:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        load(settings, [node(1), node(2, port), node_for(3, alive)])
        log = PacketLog(settings, 1)
        with delivering(settings):
            started = time.monotonic()
            for number in range(100):
                log.append(CLUSTER, [frame(number)])
            alive.wait_for_frames(100, 1.0)
            wait_until(lambda: read_node(settings, 2).condition is Condition.PROBING, 3, "probing")
            assert time.monotonic() - started <= 2.5
        for filler in fillers:
            filler.close()


def test_three_workers_that_see_one_failure_count_it_once(
    redis_client: redis.Redis, redis_url: str
) -> None:
    settings = Settings(redis_url=redis_url, linger=0.3, send_timeout=1.0)
    senders = (1, 11, 12)
    nodes = [*(node(s) for s in senders), node(2, port=1, failed_attempts=9)]
    load(settings, nodes)
    with ExitStack() as stack:
        for sender in senders:
            own = replace(settings, delivery_queue=f"q{sender}")
            PacketLog(own, sender).append(CLUSTER, [frame(0, sender=sender)])
        for sender in senders:
            stack.enter_context(delivering(settings, queue=f"q{sender}"))
        wait_until(lambda: read_node(settings, 2).no_tries, 5, "failure seen")
        wait_until(
            lambda: not any(redis_client.exists(keys.lease(s)) for s in senders), 10, "all done"
        )
    assert read_node(settings, 2).no_tries == 1


def test_a_stopped_worker_writes_nothing_after_another_has_taken_over(
    settings: Settings, redis_client: redis.Redis
) -> None:
    """The lease is taken away as if the worker had been stopped; it must not write any more."""
    settings = replace(settings, linger=30.0)
    with BinReceiver() as peer:
        load(settings, [node(1), node_for(2, peer)])
        log = PacketLog(settings, 1)
        with delivering(settings):
            log.append(CLUSTER, [frame(0)])
            peer.wait_for_frames(1)
            wait_until(lambda: redis_client.hlen(keys.cursor(1)), 2, "cursor recorded")
            thief = DrainStore(settings, settings.delivery_queue, "thief")
            redis_client.delete(keys.lease(1))
            assert thief.claim(1) is not None
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
            cursor = redis_client.hgetall(keys.cursor(1))
            keep.set()
            thread.join()
            redis_client.delete(keys.lease(1))
            peer.wait_for_frames(2)
    assert seen == [0]
    assert [int(value) for value in cursor.values()] == [1]


def test_a_worker_that_stood_still_just_before_a_write_does_not_write(
    settings: Settings, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its look at the socket and the write the lease runs out and another takes over."""
    settings = replace(settings, linger=30.0, send_timeout=10.0)
    standing, going_on = threading.Event(), threading.Event()
    real_check = Link.check

    def check(link: Link) -> None:
        real_check(link)
        if standing.is_set():
            going_on.wait(10)

    monkeypatch.setattr(Link, "check", check)
    with BinReceiver(receive_buffer=4096) as peer:
        load(settings, [node(1), node_for(2, peer)])
        log = PacketLog(settings, 1)
        with delivering(settings):
            log.append(CLUSTER, [frame(0)])
            peer.wait_for_frames(1)
            peer.pause()
            log.append(CLUSTER, [frame(n, 1000) for n in range(1, 2001)])
            wait_until(lambda: cursor_of(redis_client) > 1, 5, "begun")
            standing.set()
            peer.resume()  # the socket takes more: the worker looks at it, and stands still
            thief = DrainStore(settings, settings.delivery_queue, "thief")
            wait_until(lambda: thief.claim(1), 5, "the lease has run out")
            wait_until(lambda: rests(peer), 5, "what the kernel had has arrived")
            before = len(peer.connections[0].data)
            standing.clear()
            going_on.set()
            wait_until(lambda: peer.connections[0].ended, 5, "connection closed")
            assert len(peer.connections[0].data) == before
            assert cursor_of(redis_client) < 2001, "and moves no cursor"
            wait_until(lambda: set(numbers(peer)) == set(range(2001)), 5, "goes on later")


def cursor_of(client: redis.Redis) -> int:
    """Return the only cursor that there is."""
    return next((int(value) for value in client.hvals(keys.cursor(1))), 0)


def rests(peer: BinReceiver) -> bool:
    before = len(peer.connections[0].data)
    time.sleep(0.2)
    return len(peer.connections[0].data) == before


def test_membership_changes_in_mid_stream_reach_exactly_the_right_nodes(
    settings: Settings, redis_client: redis.Redis
) -> None:
    with BinReceiver() as stays, BinReceiver() as moves, BinReceiver() as target:
        load(settings, [node(1), node_for(2, stays), node_for(3, moves)])
        log, store, sent = PacketLog(settings, 1), NodeStore(settings), 0

        def send(count: int) -> None:
            nonlocal sent
            for _ in range(count):
                log.append(CLUSTER, [frame(sent)])
                sent += 1

        with delivering(settings):
            send(200)
            load(settings, [node(1), node_for(2, stays)])
            send(200)
            load(settings, [node(1), node_for(2, stays), node_for(3, moves)])
            readded_at = sent
            send(200)
            moves.wait_for_frames(200)
            wait_until(lambda: sent - 1 in numbers(moves), 5, "node 3 is current")
            load(settings, [node(1), node_for(2, stays), node_for(3, target)])
            moved_at = sent
            send(200)
            store.command(CLUSTER, 3, Event.SET_DOWN, Cause("test"))
            store.command(CLUSTER, 3, Event.SET_UP, Cause("test"))
            send(200)
            stays.wait_for_frames(sent)
            wait_until(lambda: sent - 1 in numbers(target), 5, "node 3 is current")
    assert numbers(stays) == list(range(sent)), "nothing skipped for a node that stayed up"
    assert max(numbers(moves)) < moved_at, "nothing to the old address"
    assert min(numbers(target)) >= moved_at, "nothing old to the new address"
    old = [n for n in numbers(moves) if n < readded_at]
    assert not [n for n in numbers(moves) if 200 <= n < readded_at], "nothing old to a new node"
    assert old == sorted(set(old))


def test_a_node_taken_down_while_it_catches_up_gets_no_more_than_what_was_read(
    settings: Settings, redis_client: redis.Redis
) -> None:
    """Nothing new comes, so nothing but its own reads can tell the worker."""
    settings = replace(settings, backlog="replay", linger=5.0, log_max_packets=10_000_000)
    store, total = NodeStore(settings), 400_000
    with ThrottledReceiver(20_000_000) as late, BinReceiver() as current:
        load(settings, [node(1), node_for(2, current), node(3, late.port)])
        store.command(CLUSTER, 3, Event.SET_DOWN, Cause("test"))
        log = PacketLog(settings, 1)
        piece = [frame(n, 100) for n in range(1000)]
        for _ in range(total // len(piece)):
            log.append(CLUSTER, piece)
        with delivering(settings):
            wait_until(lambda: stat(redis_client, 2, "sent") == total, 30, "the front is there")
            store.command(CLUSTER, 3, Event.SET_UP, Cause("test"))
            wait_until(lambda: stat(redis_client, 3, "sent") > 10_000, 5, "catching up")
            store.command(CLUSTER, 3, Event.SET_DOWN, Cause("test"))
            at_once = stat(redis_client, 3, "sent")
            time.sleep(0.5)
            in_the_end = stat(redis_client, 3, "sent")
    assert in_the_end < total
    assert in_the_end - at_once <= 12_000, "what was read, or on its way"


def test_a_packet_after_silence_wakes_a_worker_at_once(
    settings: Settings, redis_client: redis.Redis
) -> None:
    settings = replace(settings, linger=0.05)
    engine = Engine(settings, settings.delivery_queue)
    with BinReceiver() as peer:
        load(settings, [node(1), node_for(2, peer)])
        log = PacketLog(settings, 1)
        for number in range(3):
            assert log.append(CLUSTER, [frame(number)]), "a job is to be enqueued"
            assert not log.append(CLUSTER, [frame(number)]), "one only"
            engine.run()
        peer.wait_for_frames(6)
    engine.close()


def test_a_sender_that_becomes_pending_is_taken_by_the_running_job_at_once(
    settings: Settings,
) -> None:
    settings, senders = replace(settings, linger=30.0), range(11, 21)
    with BinReceiver() as peer:
        load(settings, [node(1), *(node(s) for s in senders), node_for(2, peer)])
        with delivering(settings):
            PacketLog(settings, 1).append(CLUSTER, [frame(0)])
            peer.wait_for_frames(1)
            for count, sender in enumerate(senders, 2):
                PacketLog(settings, sender).append(CLUSTER, [frame(0, sender=sender)])
                peer.wait_for_frames(count, 0.5)


@pytest.mark.parametrize("fault", ["lost job", "doubled job", "flushed queue"])
def test_delivery_goes_on_whatever_happens_to_the_rq_job(
    settings: Settings, redis_client: redis.Redis, fault: str
) -> None:
    with BinReceiver() as peer:
        load(settings, [node(1), node_for(2, peer)])
        queue = settings.delivery_queue
        if PacketLog(settings, 1).append(CLUSTER, [frame(0)]) and fault != "lost job":
            for _ in range(2 if fault == "doubled job" else 1):
                jobs.enqueue_delivery(queue, jobs.connect(settings))
        if fault == "flushed queue":
            redis_client.delete(f"rq:queue:{queue}")
        if fault != "doubled job":
            wait_until(lambda: sweep.run(Context(settings)), 2.5, "the sweep wakes a worker")
        state = runtime.start(settings)
        worker = Worker(queue, connection=jobs.connect(settings))
        worker.work(burst=True, logging_level=None)
        peer.wait_for_frames(1, 3)
        state.close()
    assert numbers(peer) == [0]


@pytest.mark.timeout(300)
def test_every_send_wakes_somebody_whatever_the_moment(
    settings: Settings, redis_client: redis.Redis
) -> None:
    """Logs are given back all the time while senders go on: the wake-up race."""
    settings = replace(settings, linger=0.005)
    senders, each = (1, 11, 12, 13), scaled(400, 5_000)
    with BinReceiver() as peer:
        load(settings, [*(node(s) for s in senders), node_for(2, peer)])

        def send(sender: int) -> None:
            log = PacketLog(settings, sender)
            for number in range(each):
                log.append(CLUSTER, [frame(number, sender=sender)])
                if number % 7 == sender % 7:
                    time.sleep(0.006)

        with delivering(settings), delivering(settings):
            threads = [threading.Thread(target=send, args=(s,)) for s in senders]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            deadline = time.monotonic() + 2.0
            peer.wait_for_frames(len(senders) * each, max(deadline - time.monotonic(), 0.1))
    for sender in senders:
        got = [p.fields().pop_int() for p in peer.packets if p.machine_id == sender]
        assert got == list(range(each))


def test_a_log_trimmed_under_a_stuck_node_counts_its_loss_and_hurts_nobody_else(
    settings: Settings, redis_client: redis.Redis
) -> None:
    settings = replace(settings, log_max_packets=2000, send_timeout=30.0)
    with BinReceiver(receive_buffer=4096) as stuck, BinReceiver() as healthy:
        load(settings, [node(1), node_for(2, stuck), node_for(3, healthy)])
        log = PacketLog(settings, 1)
        total = 20_000
        with delivering(settings):
            stuck.pause()
            for start in range(0, total, 100):
                log.append(CLUSTER, [frame(n, 1000) for n in range(start, start + 100)])
                healthy.wait_for_frames(start + 100)
            stuck.resume()
            wait_until(lambda: stat(redis_client, 2, "lost") > 0, 10, "loss counted")
            wait_until(
                lambda: (
                    sum(stat(redis_client, 2, name) for name in ("sent", "lost", "skipped"))
                    == total
                ),
                10,
                "every packet is sent, lost or skipped",
            )
    assert numbers(healthy) == list(range(total))
    assert stat(redis_client, 3, "lost") == 0
    got = numbers(stuck)
    assert got == sorted(got)


def test_redis_from_an_older_append_only_file_is_survived(
    own_redis_server: Callable[[], RedisServer],
) -> None:
    """It knows neither the last 50 packets nor that they were delivered."""
    server = own_redis_server()
    settings = Settings(redis_url=server.url, linger=0.3, send_timeout=1.0)
    files, older = server.directory / "appendonlydir", server.directory / "older"
    with BinReceiver() as peer:
        load(settings, [node(1), node_for(2, peer)])
        log = PacketLog(settings, 1)
        with delivering(settings):
            log.append(CLUSTER, [frame(n) for n in range(50)])
            peer.wait_for_frames(50)
            with server.client() as client:
                wait_until(lambda: not client.exists(keys.lease(1)), 5, "given back")
            time.sleep(1.5)  # appendfsync everysec
            shutil.copytree(files, older)
            log.append(CLUSTER, [frame(n) for n in range(50, 100)])
            peer.wait_for_frames(100)
            server.kill()
            shutil.rmtree(files)
            older.rename(files)
            server.start()
            wait_until(lambda: _appended(log, 100), 5, "append")
            wait_until(lambda: 100 in numbers(peer), 6, "delivery goes on")
            with server.client() as client:
                wait_until(lambda: stat(client, 2, "sent") == 51, 5, "counted")
                assert int(client.hget(keys.counters(1), "1:bin") or 0) == 51
    assert numbers(peer) == list(range(101))


def _appended(log: PacketLog, number: int) -> bool:
    try:
        log.append(CLUSTER, [frame(number)])
    except StateUnavailable:
        return False
    return True
