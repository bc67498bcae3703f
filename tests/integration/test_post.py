"""`post`: order, the background thread, errors, threads, forks and the end of a process."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from clusterer import PROTO_BIN, Clusterer, FrameTooLarge, InvalidArgument, Settings
from clusterer.settings import as_environment
from clusterer.store import ClusterKey, keys
from tests.support.cluster import load, node, node_for, numbers
from tests.support.forked import in_child
from tests.support.posted import LONG_S, logged, numbered, post
from tests.support.processes import spawn, wait_until
from tests.support.receiver import BinReceiver

PROJECT = Path(__file__).parents[2]
SECOND = ClusterKey(2, "bin")


@pytest.fixture
def cluster(settings: Settings) -> Iterator[Clusterer]:
    load(settings, [node(1), node(2), node(3)])
    load(settings, [node(1, cluster_id=2), node(4, cluster_id=2)], SECOND)
    with Clusterer(1, settings=settings) as made:
        yield made


def test_post_returns_number_of_nodes_up(cluster: Clusterer, redis_client: redis.Redis) -> None:
    assert cluster.post(1, PROTO_BIN, numbered(cluster, 1)) == 2
    cluster.set_state(1, 3, 0, PROTO_BIN)
    assert cluster.post(1, PROTO_BIN, numbered(cluster, 2)) == 1
    assert cluster.flush(LONG_S)
    assert logged(redis_client) == [1, 2]
    assert cluster.sender.counts.posted == 2


def test_post_alone_is_delivered_by_a_worker_process(settings: Settings) -> None:
    with BinReceiver() as receiver:
        load(settings, [node(1), node_for(2, receiver)])
        with (
            spawn(["-m", "workers", "delivery"], as_environment(settings)),
            Clusterer(1, settings=settings) as cluster,
        ):
            post(cluster, range(500))
            receiver.wait_for_frames(500, LONG_S)
    assert numbers(receiver) == list(range(500))


def test_post_and_send_to_of_one_thread_keep_order(
    cluster: Clusterer, redis_client: redis.Redis
) -> None:
    for number in range(0, 600, 6):
        post(cluster, (number, number + 1))
        cluster.send_to(1, PROTO_BIN, numbered(cluster, number + 2))
        post(cluster, (number + 3,))
        some = [numbered(cluster, number + 4), numbered(cluster, number + 5)]
        cluster.send_many(1, PROTO_BIN, some)
    assert logged(redis_client) == list(range(600))


def test_post_send_to_waits_for_posts_before_it(
    settings: Settings, cluster: Clusterer, redis_client: redis.Redis
) -> None:
    """More bytes wait than one round trip takes, and for longer than the test lasts."""
    slow = Settings(redis_url=settings.redis_url, flush_interval=60)
    with Clusterer(1, settings=slow) as patient:
        patient.post(1, PROTO_BIN, numbered(patient, 0))
        assert patient.flush(LONG_S)
        post(patient, range(1, 100), size=10_000)
        patient.send_to(1, PROTO_BIN, numbered(patient, 100))
        assert logged(redis_client) == list(range(101))


def test_post_waits_flush_interval_for_more(settings: Settings, cluster: Clusterer) -> None:
    slow = Settings(redis_url=settings.redis_url, flush_interval=60)
    with Clusterer(1, settings=slow) as patient:
        post(patient, [0])
        assert patient.flush(LONG_S)
        post(patient, [1, 2])
        assert not patient.flush(0)
        assert patient.sender.waiting_bytes == 2 * len(numbered(patient, 1).encode())
        assert patient.flush(LONG_S)
        assert patient.flush(0)


def test_post_to_clusters_in_turns_keeps_order(
    cluster: Clusterer, redis_client: redis.Redis
) -> None:
    for number in range(2000):
        cluster.post(1 + number % 2, PROTO_BIN, numbered(cluster, number))
    assert cluster.flush(LONG_S)
    assert logged(redis_client) == list(range(2000))
    assert logged(redis_client, cluster_id=2) == list(range(1, 2000, 2))


def test_post_in_threads_keeps_order_of_each(cluster: Clusterer, redis_client: redis.Redis) -> None:
    def work(thread: int) -> None:
        for number in range(3000):
            packet = numbered(cluster, thread * 10_000 + number)
            if number % 500 == 499:
                cluster.send_to(1, PROTO_BIN, packet)
            else:
                cluster.post(1, PROTO_BIN, packet)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG_S)
    assert cluster.flush(LONG_S)
    found = logged(redis_client)
    assert len(found) == 18_000
    for first in range(0, 60_000, 10_000):
        own = [number for number in found if first <= number < first + 10_000]
        assert own == list(range(first, first + 3000))


def test_post_of_what_cannot_be_sent_raises(cluster: Clusterer) -> None:
    packet = numbered(cluster, 1)
    for wrong in (True, 1.0, "1", None, 0, -1, 2**31):
        with pytest.raises(InvalidArgument, match="cluster_id"):
            cluster.post(wrong, PROTO_BIN, packet)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="bin"):
        cluster.post(1, "sip", packet)
    with pytest.raises(InvalidArgument, match="Packet"):
        cluster.post(1, PROTO_BIN, packet.encode())  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="negative"):
        cluster.post(1, PROTO_BIN, packet._replace(type=-1))
    with pytest.raises(FrameTooLarge):
        cluster.post(1, PROTO_BIN, packet._replace(payload=b"x" * 70_000))
    assert cluster.sender.counts.posted == 0


def test_post_to_unknown_cluster_blocks_nothing(
    cluster: Clusterer, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        post(cluster, [1])
        assert cluster.post(9, PROTO_BIN, numbered(cluster, 2)) == 0
        post(cluster, [3])
        assert cluster.flush(LONG_S)
    assert logged(redis_client) == [1, 3]
    assert cluster.sender.counts.refused == 1
    assert "sender 1: 1 posted packets to cluster 9:bin refused: no node of cluster" in caplog.text


def test_post_to_cluster_made_since_is_sent(
    cluster: Clusterer, settings: Settings, redis_client: redis.Redis
) -> None:
    post(cluster, [1])
    load(settings, [node(1, cluster_id=5), node(2, cluster_id=5)], ClusterKey(5, "bin"))
    post(cluster, [2, 3], cluster_id=5)
    assert cluster.flush(LONG_S)
    assert logged(redis_client) == [1, 2, 3]
    assert cluster.sender.counts.refused == 0


def test_post_refused_by_redis_blocks_no_other_cluster(
    cluster: Clusterer, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    redis_client.hset(keys.counters(1), "2:bin", "no number")
    with caplog.at_level(logging.WARNING):
        for number in range(300):
            cluster.post(1 + number % 3 // 2, PROTO_BIN, numbered(cluster, number))
        assert cluster.flush(LONG_S)
    assert logged(redis_client) == [number for number in range(300) if number % 3 < 2]
    assert cluster.sender.counts.refused == 100
    assert "posted packets to cluster 2:bin refused" in caplog.text
    redis_client.hdel(keys.counters(1), "2:bin")
    post(cluster, [1000], cluster_id=2)
    assert cluster.flush(LONG_S)
    assert logged(redis_client, cluster_id=2) == [1000]


def test_post_in_forked_child_starts_empty(
    settings: Settings, cluster: Clusterer, redis_client: redis.Redis
) -> None:
    slow = Settings(redis_url=settings.redis_url, flush_interval=60)
    with Clusterer(1, settings=slow) as patient:
        post(patient, [0])
        assert patient.flush(LONG_S)
        post(patient, [1, 2])  # these wait in the parent

        def child() -> bool:
            assert patient.sender.waiting_bytes == 0
            post(patient, [100])
            sent = patient.flush(LONG_S)
            post(patient, [101])
            patient.close()
            return sent and patient.flush(0)

        assert in_child(child) == 0
        assert logged(redis_client) == [0, 100, 101]
        assert patient.flush(LONG_S)
        assert logged(redis_client) == [0, 100, 101, 1, 2]


def test_post_close_sends_what_waits(
    settings: Settings, cluster: Clusterer, redis_client: redis.Redis
) -> None:
    slow = Settings(redis_url=settings.redis_url, flush_interval=60)
    patient = Clusterer(1, settings=slow)
    for first in (0, 10):  # also after an earlier close
        post(patient, range(first, first + 10))
        patient.close()
    assert logged(redis_client) == list(range(20))
    names = [thread.name for thread in threading.enumerate()]
    wait_until(lambda: names.count("clusterer-sender") <= 1, LONG_S)


AT_EXIT = """
import sys
from clusterer import Clusterer, Settings
cluster = Clusterer(1, settings=Settings(redis_url=sys.argv[1]))
for number in range(100):
    cluster.post(1, "bin", cluster.packet("test", 1).push_int(number).build())
"""


def test_post_before_end_of_program_is_sent(
    cluster: Clusterer, settings: Settings, redis_client: redis.Redis
) -> None:
    subprocess.run([sys.executable, "-c", AT_EXIT, settings.redis_url], timeout=60, check=True)
    assert logged(redis_client) == list(range(100))


INTERRUPTED = """
import _thread, sys, threading, time
from clusterer import Clusterer, Settings
cluster = Clusterer(1, settings=Settings(redis_url=sys.argv[1]))
def packet(number):
    return cluster.packet("test", 1).push_int(number).build()
interrupted = threading.Event()
def interrupt():
    _thread.interrupt_main()
    interrupted.set()
number = 0
cluster.post(1, "bin", packet(number))
for turn in range(200):
    interrupted.clear()
    try:
        threading.Timer(0.0007 * (turn % 7), interrupt).start()
        while not interrupted.is_set():  # Python ignores an interrupt that comes in a finalizer
            (cluster.send_to if number % 50 == 49 else cluster.post)(1, "bin", packet(number + 1))
            number += 1
        time.sleep(0)  # an interrupt that is still to come comes here
    except KeyboardInterrupt:
        number += 1  # it may be sent or not
done = False
while not done:
    try:
        done = cluster.flush(60)
    except KeyboardInterrupt:
        pass
print(number, cluster.sender.waiting_bytes)
"""


def test_post_interrupted_loses_no_other_packet(
    cluster: Clusterer, settings: Settings, redis_client: redis.Redis
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, settings.redis_url],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
        cwd=PROJECT,
    )
    last, waiting = map(int, done.stdout.split())
    found = logged(redis_client)
    missing = set(range(last)) - set(found)
    assert waiting == 0
    assert len(missing) <= 200, "one packet of each interrupt"
    assert list(dict.fromkeys(found)) == sorted(set(found)), "in order, repetitions apart"
