"""Delivery workers as real processes, killed and stopped at random moments."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial

import pytest
import redis

from clusterer import Clusterer, Settings, StateUnavailable
from clusterer.services import Context
from clusterer.services.periodic import sweep
from clusterer.settings import as_environment
from clusterer.store import keys
from clusterer.wire import FrameDecoder3, Packet, Trailer
from tests.support.cluster import assert_accounted, at_rest, load, node, node_for, numbers
from tests.support.processes import EVENTUALLY_S, LATE_S, ChildProcess, spawn, wait_until
from tests.support.receiver import BinReceiver
from tests.support.scale import scaled

KILLS = scaled(12, 100)
AT_LEAST = scaled(0, 20_000)
BATCH = 500


SETTINGS = {"server_id": 1, "linger": 1.0, "send_timeout": 1.0}


@contextmanager
def sweeping(settings: Settings) -> Iterator[None]:
    """Run the sweep every second, as the scheduler has it done."""
    stop = threading.Event()
    context = Context(settings)

    def work() -> None:
        while not stop.wait(1.0):
            with suppress(StateUnavailable):
                sweep.run(context)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        context.close()


def holder(client: redis.Redis, workers: list[ChildProcess]) -> ChildProcess | None:
    token = str(client.get(keys.lease(1)))
    return next((w for w in workers if f":{w.pid}:" in token), None)


def made(instance: Clusterer, number: int, size: int = 150) -> Packet:
    return instance.packet("test", 1).push_int(number).push_str(b"x" * size).build()


def send(instance: Clusterer, numbers_: range, pause_s: float = 0.0) -> None:
    for number in numbers_:
        instance.send_to(1, "bin", made(instance, number))
        if pause_s:
            time.sleep(pause_s)


def send_at_once(instance: Clusterer, numbers_: range) -> None:
    """Send more bytes than the kernel has room for."""
    instance.send_many(1, "bin", [made(instance, number, 600) for number in numbers_])


def has_all(receiver: BinReceiver, wanted: set[int]) -> bool:
    return wanted <= set(numbers(receiver))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_delivery_workers_killed_repeat_at_most_a_batch_each(
    settings: Settings, redis_client: redis.Redis
) -> None:
    rng = random.Random(1)
    with ExitStack() as stack:
        receivers = [stack.enter_context(BinReceiver()) for _ in range(2)]
        load(settings, [node(1), *(node_for(i, r) for i, r in enumerate(receivers, 2))])
        stack.enter_context(sweeping(settings))

        def worker() -> ChildProcess:
            return stack.enter_context(spawn(["-m", "workers", "delivery"], env))

        env = as_environment(settings)
        workers = [worker() for _ in range(3)]
        instance = stack.enter_context(Clusterer(settings=settings))
        enough = threading.Event()
        sent: list[int] = []

        def keep_sending() -> None:
            while not enough.is_set():
                send(instance, range(len(sent), len(sent) + 10), 0.001)
                sent.extend(range(10))

        sender = threading.Thread(target=keep_sending)
        sender.start()
        stack.callback(enough.set)
        gaps = []
        for _ in range(KILLS):
            victim = wait_until(partial(holder, redis_client, workers), message="a worker delivers")
            time.sleep(rng.uniform(0.0, 0.3))
            victim.kill()
            killed_at, seen = time.monotonic(), receivers[0].frame_count
            workers = [w for w in workers if w is not victim] + [worker()]
            receivers[0].wait_for_frames(seen + 50)
            gaps.append(time.monotonic() - killed_at)
        wait_until(lambda: len(sent) >= AT_LEAST, 4 * EVENTUALLY_S, "enough sent")
        enough.set()
        sender.join(EVENTUALLY_S)
        total = len(sent)
        everything = set(range(total))
        for receiver in receivers:
            wait_until(partial(has_all, receiver, everything), message="all delivered")
            assert receiver.frame_count - total <= KILLS * BATCH
            got = numbers(receiver)
            first_seen = list(dict.fromkeys(got))
            assert first_seen == sorted(first_seen), "no packet overtook another"
        wait_until(lambda: at_rest(settings), message="given back")
        assert_accounted(settings)
    assert max(gaps) <= 3.5 + LATE_S, f"resumed within 3 s, and the 50 packets waited for: {gaps}"


def test_delivery_worker_stopped_during_takeover_writes_nothing(
    settings: Settings, redis_client: redis.Redis
) -> None:
    with ExitStack() as stack:
        receiver = stack.enter_context(BinReceiver())
        load(settings, [node(1), node_for(2, receiver)])
        stack.enter_context(sweeping(settings))
        env = as_environment(settings)
        workers = [stack.enter_context(spawn(["-m", "workers", "delivery"], env)) for _ in "ab"]
        instance = stack.enter_context(Clusterer(settings=settings))
        send(instance, range(10))
        receiver.wait_for_frames(10)
        stopped = wait_until(lambda: holder(redis_client, workers), message="leased")
        stopped.pause()
        sender = threading.Thread(target=send, args=(instance, range(10, 3000), 0.001))
        sender.start()
        time.sleep(5.0)
        stopped.resume()
        sender.join(EVENTUALLY_S)
        wait_until(lambda: set(range(3000)) <= set(numbers(receiver)), message="all delivered")
        time.sleep(0.5)
    got = numbers(receiver)
    assert list(dict.fromkeys(got)) == list(range(3000)), "in order"
    assert len(got) - 3000 <= BATCH, "at most the one write in which it was stopped"


def test_delivery_worker_sigterm_hands_over_within_5_s(
    settings: Settings, redis_client: redis.Redis
) -> None:
    with ExitStack() as stack:
        receiver = stack.enter_context(BinReceiver())
        load(settings, [node(1), node_for(2, receiver)])
        stack.enter_context(sweeping(settings))
        env = as_environment(settings)
        workers = [stack.enter_context(spawn(["-m", "workers", "delivery"], env)) for _ in "ab"]
        instance = stack.enter_context(Clusterer(settings=settings))
        sender = threading.Thread(target=send, args=(instance, range(2000), 0.001))
        sender.start()
        receiver.wait_for_frames(50)
        ending = wait_until(lambda: holder(redis_client, workers), message="leased")
        started = time.monotonic()
        assert ending.terminate() == 0
        assert time.monotonic() - started <= 5.0 + LATE_S
        sender.join(EVENTUALLY_S)
        receiver.wait_for_frames(2000)
        time.sleep(0.3)
    assert numbers(receiver) == list(range(2000)), "nothing lost, nothing twice, in order"


def test_delivery_worker_stopped_with_pending_bytes_drops_them(
    settings: Settings, redis_client: redis.Redis
) -> None:
    """The worker's socket is full, and becomes writable while another worker has the lease."""
    # A worker that releases the log after its first packet waits `send_timeout` for the paused
    # receiver to close, and the packets sent meanwhile become too old to be delivered.
    settings = replace(settings, send_timeout=EVENTUALLY_S, linger=EVENTUALLY_S)
    with ExitStack() as stack:
        receiver = stack.enter_context(BinReceiver(receive_buffer=4096))
        load(settings, [node(1), node_for(2, receiver)])
        stack.enter_context(sweeping(settings))
        env = as_environment(settings)
        workers = [stack.enter_context(spawn(["-m", "workers", "delivery"], env)) for _ in "ab"]
        instance = stack.enter_context(Clusterer(settings=settings))
        send(instance, range(1))
        receiver.wait_for_frames(1)
        receiver.pause()
        send_at_once(instance, range(1, 10_001))
        stopped = wait_until(lambda: holder(redis_client, workers), message="leased")
        wait_until(lambda: offset_rests(redis_client), message="nothing goes any more")
        assert committed(redis_client) < 10_001, "bytes are pending"
        stopped.pause()
        wait_until(
            lambda: holder(redis_client, workers) not in (stopped, None), message="taken over"
        )
        receiver.resume()
        wait_until(lambda: has_all(receiver, set(range(10_001))), message="all delivered")
        first, second = (c for c in receiver.connections if c.packets)  # others are pings
        before = len(first.data)
        stopped.resume()
        wait_until(lambda: first.ended, message="the old connection is closed")
        assert len(first.data) == before
        send(instance, range(10_001, 10_101))
        wait_until(lambda: numbers(receiver)[-1] == 10_100, message="goes on")
        assert committed(redis_client) >= 10_001, "no committed offset went back"
    resent = [packet.fields().pop_int() or 0 for packet in second.packets]
    assert resent == sorted(set(resent)), "the new connection has them in order"


def test_delivery_workers_killed_keep_destination_of_each_node(
    settings: Settings, redis_client: redis.Redis
) -> None:
    """In a cluster of OpenSIPS 3.x, whose frames name the node that each is for."""
    settings = replace(settings, opensips_3_clusters="1")
    with ExitStack() as stack:
        receivers = [stack.enter_context(BinReceiver(decoder=FrameDecoder3)) for _ in range(2)]
        load(settings, [node(1), *(node_for(i, r) for i, r in enumerate(receivers, 2))])
        stack.enter_context(sweeping(settings))
        env = as_environment(settings)
        workers = [stack.enter_context(spawn(["-m", "workers", "delivery"], env)) for _ in "abcd"]
        instance = stack.enter_context(Clusterer(settings=settings))
        total = 0
        while len(workers) > 1:
            for number in range(total, total + 300):
                packet = instance.packet("dialog-dlg-repl", 2, cluster_id=1).push_int(number)
                instance.send_to(1, "bin", packet.push_str(b"x" * (number % 70)).build())
            total += 300
            victim = wait_until(partial(holder, redis_client, workers), message="a worker delivers")
            victim.kill()
            workers.remove(victim)
        for machine_id, receiver in enumerate(receivers, 2):
            wait_until(partial(has_all, receiver, set(range(total))), message="all delivered")
            trailers = {packet.trailer for packet in receiver.packets}
            assert trailers == {Trailer(1, machine_id)}
            assert not any(connection.error for connection in receiver.connections)
        wait_until(lambda: at_rest(settings), message="given back")
        assert_accounted(settings)


def committed(client: redis.Redis) -> int:
    """The only committed offset of sender 1; 0 without one."""
    return int(next(iter(client.hvals(keys.committed(1))), 0))


def offset_rests(client: redis.Redis) -> bool:
    """Whether some of the packets behind the first are committed, and no more follow."""
    before = committed(client)
    time.sleep(1.0)
    return 1 < before == committed(client)
