"""The sender's end of the log: threads that share round trips, and a connection that breaks."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any

import pytest
import redis

from clusterer import Settings, StateUnavailable
from clusterer.store import ClusterKey, keys
from clusterer.store.packets import PacketLog
from tests.support.cluster import CLUSTER
from tests.support.frames import frame
from tests.support.processes import EVENTUALLY_S, wait_until
from tests.support.redis_server import RedisServer
from tests.support.streams import entries


@pytest.fixture
def log(redis_client: redis.Redis, redis_url: str) -> PacketLog:
    return PacketLog(Settings(redis_url=redis_url), 1)


def test_log_append_in_threads_keeps_order_of_each(
    log: PacketLog, redis_client: redis.Redis
) -> None:
    wakes: list[bool] = []

    def work(thread: int) -> None:
        key = ClusterKey(1 + thread % 2, "bin")
        wakes.extend(log.append(key, [b"%d/%08d" % (thread, n)]) for n in range(300))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    got = []
    for _, fields in entries(redis_client, keys.log(1)):
        data = fields[b"frames"]
        found = [data[i : i + 10] for i in range(0, len(data), 10)]
        assert len(found) == int(fields[b"packets"])
        got += [(fields[b"cluster"], frame) for frame in found]
    assert len(got) == 2400
    for number in range(8):
        own = [f for _, f in got if f.startswith(b"%d/" % number)]
        assert own == [b"%d/%08d" % (number, n) for n in range(300)]
        assert {c for c, f in got if f in own} == {b"%d" % (1 + number % 2)}
    assert sum(wakes) == 1, "one of all callers enqueues the one job"


def test_log_without_lease_is_pending_with_next_packet(
    log: PacketLog, redis_client: redis.Redis
) -> None:
    """While a worker has the lease, the script gets only the keys that the append needs."""
    redis_client.set(keys.lease(1), "a worker")
    assert [log.append(CLUSTER, [b"%d" % n]) for n in range(3)] == [False] * 3
    assert not redis_client.exists(keys.pending("clusterer-delivery"))
    redis_client.delete(keys.lease(1))
    assert log.append(CLUSTER, [b"3"]), "a job must be enqueued"
    runs = script_runs(redis_client)
    assert [log.append(CLUSTER, [b"%d" % n]) for n in (4, 5)] == [False] * 2, "it is on its way"
    assert script_runs(redis_client) == runs + 2, "all keys at once: no worker holds the lease"
    assert redis_client.smembers(keys.pending("clusterer-delivery")) == {b"1"}
    stored = [
        (entry_id.split(b"-")[0], f[b"frames"])
        for entry_id, f in entries(redis_client, keys.log(1))
    ]
    assert stored == [(b"%d" % (n + 1), b"%d" % n) for n in range(6)]


def script_runs(client: redis.Redis) -> int:
    stats: Any = client.info("commandstats")
    return int(stats["cmdstat_evalsha"]["calls"])


def test_log_scripts_lost_by_redis_are_loaded_again(
    log: PacketLog, redis_client: redis.Redis
) -> None:
    log.append(CLUSTER, [b"1"])
    redis_client.script_flush()
    log.append(CLUSTER, [b"2"])
    assert redis_client.xlen(keys.log(1)) == 2


def test_log_idle_redis_connection_closed_is_replaced(
    log: PacketLog, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clusterer.store.channel._IDLE_S", 0.0)
    log.append(CLUSTER, [b"1"])
    redis_client.client_kill_filter(_type="normal", skipme=True)
    log.append(CLUSTER, [b"2"])
    assert redis_client.xlen(keys.log(1)) == 2


def test_log_append_with_lost_reply_is_not_repeated(
    own_redis_server: Callable[[], RedisServer],
) -> None:
    server = own_redis_server()
    log = PacketLog(Settings(redis_url=server.url), 1)
    log.append(CLUSTER, [frame(1)])
    server.pause()
    with pytest.raises(StateUnavailable, match="append"):
        log.append(CLUSTER, [frame(2)])
    server.resume()
    log.append(CLUSTER, [frame(3)])
    client = server.client()
    assert client.xlen(keys.log(1)) in (2, 3)
    client.close()


def test_log_in_forked_child_has_own_connection(log: PacketLog, redis_client: redis.Redis) -> None:
    log.append(CLUSTER, [b"parent"])
    pid = os.fork()
    if pid == 0:
        log.append(CLUSTER, [b"child"])
        os._exit(0)
    for _ in range(50):
        log.append(CLUSTER, [b"parent"])
    assert os.waitpid(pid, 0)[1] == 0
    assert redis_client.xlen(keys.log(1)) == 52


def queue_is_longer(log: PacketLog, length: int) -> bool:
    return len(log.queue) > length


class Interrupted(BaseException):
    """The exception that Ctrl-C raises in a thread."""


def append_noting(log: PacketLog, number: int, failed: dict[int, BaseException]) -> None:
    try:
        log.append(CLUSTER, [frame(number)])
    except BaseException as error:  # noqa: BLE001 - the test looks at all of them
        failed[number] = error


def test_log_interrupted_append_leaves_others_whole(
    log: PacketLog, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that sends for others is interrupted before Redis has it."""
    log.append(CLUSTER, [frame(8)])  # a new connection would begin with a call of its own
    run = log._channel.run_each
    sending, queued, calls = threading.Event(), threading.Event(), count(1)

    def interrupted(*arguments: Any) -> list[Any]:
        call = next(calls)
        if call == 1:
            sending.set()
            queued.wait(EVENTUALLY_S)
        elif call == 2:  # of any of the threads that wait: a lock has no order
            raise Interrupted
        return run(*arguments)

    monkeypatch.setattr(log._channel, "run_each", interrupted)
    failed: dict[int, BaseException] = {}
    blocker, *threads = [
        threading.Thread(target=append_noting, args=(log, number, failed)) for number in range(7)
    ]
    blocker.start()
    assert sending.wait(EVENTUALLY_S)
    for at, thread in enumerate(threads):
        thread.start()
        wait_until(partial(queue_is_longer, log, at))
    queued.set()
    for thread in (blocker, *threads):
        thread.join(EVENTUALLY_S)
        assert not thread.is_alive()
    assert [type(error) for error in failed.values()] == [Interrupted]
    assert 0 not in failed
    stored = b"".join(fields[b"frames"] for _, fields in entries(redis_client, keys.log(1)))
    for number in set(range(7)) - set(failed):
        assert frame(number) in stored
    assert log.append(CLUSTER, [frame(7)]) in {True, False}
    assert not log.queue


def test_log_interrupt_of_main_thread_leaves_other_threads(redis_url: str) -> None:
    """Real ones, at any moment: a program of its own is interrupted 300 times."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, redis_url],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    sent, stored, errors = done.stdout.splitlines()
    assert errors == "[]"
    assert int(stored) >= int(sent) > 0


INTERRUPTED = """
import _thread, sys, threading, time
from clusterer import Settings
from clusterer.store import ClusterKey
from clusterer.store.client import connect
from clusterer.store.packets import PacketLog

settings = Settings(redis_url=sys.argv[1])
log, key, errors, sent = PacketLog(settings, 9), ClusterKey(1, "bin"), [], []

def work():
    for number in range(400):
        try:
            log.append(key, [b"x"])
            sent.append(number)
        except BaseException as error:
            errors.append(repr(error))

threads = [threading.Thread(target=work) for _ in range(6)]
for thread in threads:
    thread.start()
interrupted = threading.Event()

def interrupt():
    _thread.interrupt_main()
    interrupted.set()

for number in range(300):
    interrupted.clear()
    try:
        threading.Timer(0.0007 * (number % 7), interrupt).start()
        while not interrupted.is_set():  # Python ignores an interrupt that comes in a finalizer
            log.append(key, [b"y"])
        time.sleep(0)  # an interrupt that is still to come comes here
    except KeyboardInterrupt:
        pass
while any(thread.is_alive() for thread in threads):
    try:
        for thread in threads:
            thread.join()
    except KeyboardInterrupt:
        pass
log.append(key, [b"z"])
stored = b"".join(fields[b"frames"] for _, fields in connect(settings).xrange("clusterer:log:9"))
print(len(sent), stored.count(b"x"), sorted(set(errors)), sep="\\n")
"""
