"""Module timeouts from packet to notice: a listener, a timeout job, a real Redis."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
import redis

from clusterer.errors import StateUnavailable
from clusterer.ids import SERVER_TEMP_DISABLED, SERVER_TIMEOUT
from clusterer.listener import Listener
from clusterer.services import Context
from clusterer.services.periodic import timeouts
from clusterer.settings import Settings
from clusterer.store import ClusterKey, NodeStore, keys
from clusterer.store.receipts import Receipts
from clusterer.store.watches import Watch
from tests.support.frames import frame
from tests.support.listening import Recorded, listener_of, peer, send_until, serving
from tests.support.ports import free_port
from tests.support.processes import LATE_S, spawn, wait_until
from tests.support.redis_server import RedisServer
from tests.support.seeding import make_node, put_node

JOB_INTERVAL_S = 0.1


@contextlib.contextmanager
def timeout_job(url: str) -> Iterator[None]:
    """Run the timeout job again and again in a thread, Redis away or not."""
    stop = threading.Event()
    context = Context(Settings(redis_url=url))

    def work() -> None:
        while not stop.wait(JOB_INTERVAL_S):
            with contextlib.suppress(StateUnavailable):
                timeouts.run(context)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        context.close()


@contextlib.contextmanager
def heartbeat(port: int, machine_id: int, interval_s: float = 0.1) -> Iterator[None]:
    """Send packets of type 0 from a machine until the end of the block."""
    stop = threading.Event()

    def work() -> None:
        with peer(port, machine_id) as connection, contextlib.suppress(OSError):
            while not stop.wait(interval_s):
                connection.sendall(frame(kind=0, sender=machine_id))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def seed(client: redis.Redis) -> int:
    """Put nodes 1 to 3 into cluster 1; returns their port."""
    port = free_port()
    for machine_id in (1, 2, 3):
        put_node(client, make_node(machine_id, port=port))
    return port


def register(listener: Listener, timeout_s: float, **changes: object) -> Recorded:
    recorded = Recorded()
    options = {"auth_check": True, "cluster_id": 1} | changes
    listener.register("ratelimit", recorded, timeout_s=timeout_s, **options)  # type: ignore[arg-type]
    return recorded


def timed_out(recorded: Recorded) -> list[int]:
    return [machine_id for kind, machine_id in recorded.seen if kind == SERVER_TIMEOUT]


def test_timeouts_silent_node_is_announced_muted_and_up(
    redis_url: str, redis_client: redis.Redis
) -> None:
    port = seed(redis_client)
    with listener_of(redis_url) as listener:
        recorded = register(listener, 1.0)
        with serving(listener), timeout_job(redis_url), heartbeat(port, 3), peer(port) as silent:
            silent.sendall(frame(kind=6, sender=2))
            recorded.wait_for(6, 2)
            started = time.monotonic()
            recorded.wait_for(SERVER_TIMEOUT, 2)
            after = time.monotonic() - started
            assert 0.9 < after < 3 + LATE_S, "at most 2 s late"
            assert (SERVER_TIMEOUT, None, 2) in recorded.calls

            silent.sendall(frame(kind=7, sender=2))
            recorded.wait_for(SERVER_TEMP_DISABLED, 2)
            info = recorded.calls[recorded.seen.index((SERVER_TEMP_DISABLED, 2))][1]
            assert info is not None
            assert info.packet.type == 7

            send_until(silent, recorded, 8, 2)
            silence = time.monotonic() - started - after
            assert 1.5 < silence < 3 + LATE_S
            assert recorded.seen.count((7, 2)) == 0
            assert timed_out(recorded) == [2], "once, and never the node that talks"

            recorded.wait_for(SERVER_TIMEOUT, 2, 2)
        assert listener.counters.drops["silenced"] > 0
        node = NodeStore(Settings(redis_url=redis_url)).view(ClusterKey(1, "bin")).nodes[2]
        assert node == make_node(2, port=port, version=1, generation=1), "its state is untouched"


def test_timeouts_callback_raising_does_not_stop_listener(
    redis_url: str, redis_client: redis.Redis
) -> None:
    port = seed(redis_client)

    def fail(kind: int) -> None:
        raise RuntimeError(kind)

    with listener_of(redis_url) as listener:
        recorded = register(listener, 0.5)
        recorded.act = fail
        with serving(listener), timeout_job(redis_url):
            with peer(port) as connection:
                connection.sendall(frame(kind=4, sender=2))
            with peer(port, 3) as connection:
                connection.sendall(frame(kind=4, sender=3))
            recorded.wait_for(SERVER_TIMEOUT, 2)
            recorded.wait_for(SERVER_TIMEOUT, 3)
            with peer(port) as connection:
                connection.sendall(frame(kind=5, sender=2))
                recorded.wait_for(SERVER_TEMP_DISABLED, 2)


def test_timeouts_each_registration_has_own_clock(
    redis_url: str, redis_client: redis.Redis
) -> None:
    port = seed(redis_client)
    with listener_of(redis_url) as listener:
        short, long = register(listener, 0.5), register(listener, 60)
        with serving(listener), timeout_job(redis_url), peer(port) as connection:
            connection.sendall(frame(kind=3, sender=2))
            short.wait_for(SERVER_TIMEOUT, 2)
            connection.sendall(frame(kind=4, sender=2))
            long.wait_for(4, 2)
            short.wait_for(SERVER_TEMP_DISABLED, 2)
        assert timed_out(long) == []


def test_timeouts_node_never_seen_is_not_announced(
    redis_url: str, redis_client: redis.Redis
) -> None:
    """Beside OpenSIPS it may not run the module; and no clock was ever started for it."""
    port = seed(redis_client)
    with listener_of(redis_url) as listener:
        recorded = register(listener, 0.5)
        with serving(listener), timeout_job(redis_url):
            with peer(port) as connection:
                connection.sendall(frame(kind=4, sender=2))
            for count in (1, 2):
                recorded.wait_for(SERVER_TIMEOUT, 2, count)
        assert set(timed_out(recorded)) == {2}, "3 did not time out while 2 did twice"


def test_timeouts_node_seen_before_restart_is_announced(
    redis_url: str, redis_client: redis.Redis
) -> None:
    port = seed(redis_client)
    with listener_of(redis_url) as listener:
        recorded = register(listener, 0.5)
        with serving(listener), peer(port) as connection:
            connection.sendall(frame(kind=4, sender=2))
            recorded.wait_for(4, 2)
            wait_until(lambda: redis_client.zcard(keys.last_seen(1, "ratelimit", 1)))
    with listener_of(redis_url) as listener:
        recorded = register(listener, 0.5)
        with serving(listener), timeout_job(redis_url):
            recorded.wait_for(SERVER_TIMEOUT, 2)
        assert set(timed_out(recorded)) == {2}


def test_timeouts_reload_adds_and_removes_clocks(redis_url: str, redis_client: redis.Redis) -> None:
    port = seed(redis_client)
    with listener_of(redis_url) as listener:
        recorded = register(listener, 1.0)
        with serving(listener), timeout_job(redis_url), heartbeat(port, 2), heartbeat(port, 3):
            put_node(redis_client, make_node(4, port=port))
            with peer(port, 4) as connection:
                send_until(connection, recorded, 5, 4)
            recorded.wait_for(SERVER_TIMEOUT, 4)
            redis_client.srem(keys.nodes(1, "bin"), 4)
            redis_client.incr(keys.version(1, "bin"))
            muted = keys.muted(1, "ratelimit", 1)
            wait_until(lambda: redis_client.zcard(muted) == 0)
            assert redis_client.zscore(keys.last_seen(1, "ratelimit", 1), "4") is None
            assert redis_client.zscore(keys.last_seen(1, "ratelimit", 1), "1") is None, "ourselves"
        assert set(timed_out(recorded)) == {4}


def test_timeouts_flush_comes_every_250_ms(redis_url: str, redis_client: redis.Redis) -> None:
    seed(redis_client)
    with listener_of(redis_url) as listener:
        register(listener, 5)
        with serving(listener):
            seen: set[int] = set()

            def seen_enough() -> bool:
                seen.add(int(redis_client.hget(keys.modules(1), "heartbeat") or 0))
                return len(seen) >= 9

            wait_until(seen_enough)
    gaps_ms = [later - earlier for earlier, later in pairwise(sorted(seen - {0}))]
    # On a busy machine many come late, and some are overwritten unseen.
    assert min(gaps_ms) <= 250 + 50


def test_timeouts_redis_frozen_for_long_mutes_no_node(
    own_redis_server: Callable[[], RedisServer],
) -> None:
    server = own_redis_server()
    with server.client() as client:
        port = seed(client)
    with listener_of(server.url) as listener:
        recorded = register(listener, 3.0)
        with (
            serving(listener),
            timeout_job(server.url),
            heartbeat(port, 2),
            heartbeat(port, 3, 2.5),
        ):
            recorded.wait_for(0, 2, 5)
            server.pause()
            time.sleep(6.5)
            server.resume()
            recorded.wait_for(0, 2, len(recorded.calls) + 20)
        assert timed_out(recorded) == []


def test_timeouts_redis_restarted_mutes_no_node(
    own_redis_server: Callable[[], RedisServer],
) -> None:
    server = own_redis_server()
    with server.client() as client:
        port = seed(client)
    with listener_of(server.url) as listener:
        recorded = register(listener, 2.0)
        with serving(listener), timeout_job(server.url), heartbeat(port, 2):
            with heartbeat(port, 3):
                recorded.wait_for(0, 3)
                server.stop()
                time.sleep(3)
                server.start()
                recorded.wait_for(0, 2, len(recorded.calls) + 5)
                assert timed_out(recorded) == []
            recorded.wait_for(SERVER_TIMEOUT, 3)
            assert set(timed_out(recorded)) == {3}


def test_timeouts_redis_without_data_is_registered_again(
    own_redis_server: Callable[[], RedisServer],
) -> None:
    server = own_redis_server()
    with server.client() as client:
        port = seed(client)
        with listener_of(server.url) as listener:
            recorded = register(listener, 1.5)
            with serving(listener), timeout_job(server.url), heartbeat(port, 2):
                with peer(port, 3) as connection:
                    send_until(connection, recorded, 8, 3)
                recorded.wait_for(SERVER_TIMEOUT, 3)
                client.flushall()
                for machine_id in (1, 2, 3):
                    put_node(client, make_node(machine_id, port=port))
                with peer(port, 3) as connection:
                    send_until(connection, recorded, 9, 3)
                recorded.wait_for(SERVER_TIMEOUT, 3, 2)
            assert set(timed_out(recorded)) == {3}


def test_timeouts_event_loop_blocked_mutes_no_node(
    redis_url: str, redis_client: redis.Redis
) -> None:
    port = seed(redis_client)
    with listener_of(redis_url) as listener:
        recorded = register(listener, 2.0)
        recorded.act = lambda kind: time.sleep(4) if kind == 9 else None
        with (
            serving(listener),
            timeout_job(redis_url),
            heartbeat(port, 2),
            heartbeat(port, 3),
            peer(port) as connection,
        ):
            recorded.wait_for(0, 3)
            connection.sendall(frame(kind=9, sender=2))
            recorded.wait_for(9, 2)
            recorded.wait_for(0, 3, len(recorded.calls) + 20)
        assert timed_out(recorded) == []


_INSTANCE = """
import sys
from tests.support.listening import listener_of
def callback(kind, info, machine_id):
    if kind < 0:
        print("notice", kind, machine_id, flush=True)
    elif kind == 9:
        print("packet", machine_id, flush=True)
with listener_of(sys.argv[1]) as listener:
    listener.register("ratelimit", callback, timeout_s=3, auth_check=True, cluster_id=1)
    listener.serve()
"""


def test_timeouts_instance_stopped_mutes_no_node(redis_url: str, redis_client: redis.Redis) -> None:
    port = seed(redis_client)
    with spawn(["-c", _INSTANCE, redis_url]) as process, timeout_job(redis_url):
        wait_until(lambda: _accepts(port))
        with heartbeat(port, 2), heartbeat(port, 3, 1.0):
            wait_until(lambda: redis_client.hget(keys.modules(1), "heartbeat"))
            process.pause()
            time.sleep(6.5)
            process.resume()
            time.sleep(2)
            with peer(port) as connection:
                connection.sendall(frame(kind=9, sender=2))
                process.wait_for_output("packet 2")
        assert "notice" not in process.output()


def test_timeouts_instance_killed_causes_no_verdict(
    redis_url: str, redis_client: redis.Redis
) -> None:
    port = seed(redis_client)
    with spawn(["-c", _INSTANCE, redis_url]) as process, timeout_job(redis_url):
        wait_until(lambda: _accepts(port))
        wait_until(lambda: redis_client.hget(keys.modules(1), "heartbeat"))
        process.kill()
        time.sleep(4)
        assert redis_client.xlen(keys.notices(1)) == 0


_JOB = """
import sys
from clusterer.services import Context
from clusterer.services.periodic import timeouts
from clusterer.settings import Settings
context = Context(Settings(redis_url=sys.argv[1]))
print("begun", flush=True)
while True:
    timeouts.run(context)
"""


def test_timeouts_worker_killed_sends_each_notice_once(
    redis_url: str, redis_client: redis.Redis
) -> None:
    """Killed in the middle of thousands of verdicts, again and again."""
    many = range(2, 6_002)
    receipts = Receipts(Settings(redis_url=redis_url))
    watches = [Watch(1, name, name, 1, 1_000) for name in ("ratelimit", "dialog", "mine")]
    receipts.begin(1, "run")
    for watch in watches:
        receipts.register(watch, "run", many)
    receipts.flush(1, "run", {watch: {} for watch in watches}, age_ms=0, last_notice="0-0")
    total = len(many) * len(watches)
    for watch in watches:
        stale = dict.fromkeys(map(str, many), 1)
        redis_client.zadd(watch.last_seen, stale)

    def announced() -> int:
        return redis_client.xlen(keys.notices(1))

    for part in (1, total // 4, total // 2, total * 3 // 4):
        with spawn(["-c", _JOB, redis_url]) as process:
            wait_until(lambda part=part: announced() >= part)  # type: ignore[misc]
            process.kill()
    with spawn(["-c", _JOB, redis_url]):
        wait_until(lambda: announced() >= total)
        time.sleep(0.2)
    notices: Any = redis_client.xrange(keys.notices(1))
    seen = Counter((fields[b"registration"], fields[b"machine_id"]) for _, fields in notices)
    assert len(seen) == total
    assert set(seen.values()) == {1}


def test_timeouts_instance_restarted_gets_each_notice_once(
    redis_url: str, redis_client: redis.Redis
) -> None:
    """Notices for an earlier process do not come again."""
    port = seed(redis_client)
    with timeout_job(redis_url), heartbeats(port, 2):
        with spawn(["-c", _INSTANCE, redis_url]) as first:
            wait_until(lambda: _accepts(port))
            with peer(port, 3) as connection:
                connection.sendall(frame(kind=9, sender=3))
                first.wait_for_output("packet 3")
            first.wait_for_output("notice -2 3")
            first.kill()
        with spawn(["-c", _INSTANCE, redis_url]) as second:
            wait_until(lambda: _accepts(port))
            began = time.monotonic()
            with peer(port, 3) as connection:
                connection.sendall(frame(kind=9, sender=3))
                second.wait_for_output("packet 3")  # it is muted no more
            second.wait_for_output("notice -2 3")
            assert time.monotonic() - began > 2.5, "a clock of its own"
            time.sleep(1)
            assert second.output().count("notice -2 3") == 1
            assert "notice -2 2" not in second.output()


@contextlib.contextmanager
def heartbeats(port: int, machine_id: int) -> Iterator[None]:
    """Send packets from a node while a listener accepts them, until the end of the block."""
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(0.05):
            with contextlib.suppress(OSError), peer(port, machine_id) as connection:
                while not stop.wait(0.1):
                    connection.sendall(frame(kind=0, sender=machine_id))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_timeouts_second_process_of_machine_counts(
    redis_url: str, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    seed(redis_client)
    with listener_of(redis_url) as first, listener_of(redis_url) as second:
        register(first, 60)
        with serving(first):
            register(second, 60)
            wait_until(
                lambda: any(
                    "instance 1: another process has this machine_id" in m for m in caplog.messages
                )
            )
            assert redis_client.hget(keys.modules(1), "heartbeat") is None


def _accepts(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def test_timeout_job_reads_a_cluster_once_per_run(
    own_redis_server: Callable[[], RedisServer],
) -> None:
    """However many instances miss the same node: 30 of them here, and 40 nodes."""
    server = own_redis_server()
    with server.client() as client:
        _assert_reads_once(server.url, client, nodes=40, instances=30)


def _assert_reads_once(
    redis_url: str, redis_client: redis.Redis, nodes: int, instances: int
) -> None:
    for machine_id in range(1, nodes + 1):
        put_node(redis_client, make_node(machine_id, port=5566))
    now_ms = int(redis_client.time()[0]) * 1000
    for receiver in range(1, instances + 1):
        watch = Watch(receiver, "ratelimit", "ratelimit", 1, 10_000)
        redis_client.sadd(keys.INSTANCES, receiver)
        redis_client.hset(keys.modules(receiver), "run", "x")
        redis_client.hset(keys.modules(receiver), "heartbeat", now_ms)
        redis_client.hset(keys.modules(receiver), watch.field, watch.timeout_ms)
        redis_client.zadd(
            watch.last_seen, {str(m): now_ms for m in range(1, nodes) if m != receiver}
        )
        redis_client.zadd(watch.last_seen, {str(nodes): now_ms - 20_000})
    context = Context(Settings(redis_url=redis_url))
    before = hash_reads(redis_client)
    assert len(timeouts.run(context)) == instances
    assert hash_reads(redis_client) - before <= nodes + instances
    context.close()


def hash_reads(client: redis.Redis) -> int:
    """Return how many HGETALL the server has answered."""
    return int(client.info("commandstats").get("cmdstat_hgetall", {}).get("calls", 0))
