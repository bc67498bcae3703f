"""`post` while Redis is away, stopped or full: the buffer, its bound, and what comes back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from clusterer import PROTO_BIN, BufferFull, Clusterer, Settings, StateUnavailable
from tests.support.cluster import delivering, load, node, node_for, numbers
from tests.support.forked import fork, result_of
from tests.support.posted import LONG_S, logged, numbered, post
from tests.support.processes import wait_until
from tests.support.receiver import BinReceiver
from tests.support.redis_server import RedisServer

SMALL = 65_536
"""The smallest buffer."""
EACH = 1_000
"""Bytes that fill a packet: some 60 of them fill the small buffer."""


@pytest.fixture
def server(own_redis_server: Callable[[], RedisServer]) -> RedisServer:
    return own_redis_server()


@contextmanager
def instance(server: RedisServer, **more: object) -> Iterator[Clusterer]:
    """Return an instance in a cluster with one other node, that has sent packet 0."""
    settings = Settings(redis_url=server.url, **more)  # type: ignore[arg-type]
    load(settings, [node(1), node(2)])
    with Clusterer(1, settings=settings) as cluster:
        cluster.send_to(1, PROTO_BIN, numbered(cluster, 0))
        yield cluster


def found(server: RedisServer) -> list[int]:
    with server.client() as client:
        return logged(client)


def test_post_while_redis_is_down_loses_nothing(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    with BinReceiver() as receiver:
        settings = Settings(redis_url=server.url, linger=0.3)
        load(settings, [node(1), node_for(2, receiver)])
        with Clusterer(1, settings=settings) as cluster, delivering(settings):
            post(cluster, range(100))
            receiver.wait_for_frames(100, LONG_S)
            server.stop()
            with caplog.at_level(logging.WARNING, "clusterer.sending"):
                assert cluster.post(1, PROTO_BIN, numbered(cluster, 100)) == 1
                post(cluster, range(101, 1000))
                assert not cluster.flush(1)
                server.start()
                post(cluster, range(1000, 1100))
                assert cluster.flush(LONG_S)
            wait_until(lambda: 1099 in numbers(receiver), LONG_S, "the last packet")
    # The worker may repeat what it could not record in Redis.
    assert list(dict.fromkeys(numbers(receiver))) == list(range(1100))
    wait_until(lambda: "posted packets are sent again" in caplog.text, LONG_S)
    assert caplog.text.count("sender 1: posted packets wait for Redis: cannot append") == 1


def test_post_while_redis_is_stopped_keeps_order(server: RedisServer) -> None:
    with instance(server) as cluster:
        server.pause()
        try:
            post(cluster, range(1, 300))
            assert not cluster.flush(4)
        finally:
            server.resume()
        post(cluster, range(300, 400))
        assert cluster.flush(LONG_S)
        stored = found(server)
    assert list(dict.fromkeys(stored)) == list(range(400))
    assert len(stored) <= 2 * 400, "a repetition at most, however many attempts failed"


def test_post_beside_send_to_that_fails_keeps_order(server: RedisServer) -> None:
    with instance(server) as cluster:
        server.stop()
        post(cluster, [1, 2])
        with pytest.raises(StateUnavailable):
            cluster.send_to(1, PROTO_BIN, numbered(cluster, 1000))
        post(cluster, [3])
        server.start()
        cluster.send_to(1, PROTO_BIN, numbered(cluster, 4))
        assert found(server) == [0, 1, 2, 3, 4]


def test_post_into_full_buffer_raises_and_counts(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    with instance(server, post_buffer=SMALL) as cluster:
        server.stop()
        taken = []
        with caplog.at_level(logging.WARNING, "clusterer.sending"):
            for number in range(1, 201):
                try:
                    post(cluster, [number], size=EACH)
                    taken.append(number)
                except BufferFull:
                    continue
            counts = cluster.sender.counts
            assert 0 < counts.posted == len(taken) < 100
            assert counts.rejected == 200 - len(taken)
            assert cluster.sender.waiting_bytes <= SMALL
            text = f"the post buffer is full: {counts.rejected} packets rejected and 0 dropped"
            wait_until(lambda: text in caplog.text, LONG_S)
        server.start()
        assert cluster.flush(LONG_S)
        assert found(server) == [0, *taken]
        post(cluster, [1000], size=EACH)
        assert cluster.flush(LONG_S)


def test_post_drop_oldest_keeps_the_latest(server: RedisServer) -> None:
    with instance(server, post_buffer=SMALL, post_overflow="drop_oldest") as cluster:
        server.stop()
        post(cluster, range(1, 201), size=EACH)
        counts = cluster.sender.counts
        assert (counts.posted, counts.rejected) == (200, 0)
        assert cluster.sender.waiting_bytes <= SMALL + 65_536
        server.start()
        assert cluster.flush(LONG_S)
        stored = found(server)[1:]
        assert stored == sorted(stored)
        assert stored[-40:] == list(range(161, 201))
        assert len(stored) + counts.dropped == 200
        assert cluster.sender.waiting_bytes == 0


def test_post_while_redis_is_full_waits(server: RedisServer) -> None:
    with instance(server) as cluster, server.client() as admin:
        admin.config_set("maxmemory", 1)
        post(cluster, range(1, 50))
        assert not cluster.flush(1)
        admin.config_set("maxmemory", 0)
        assert cluster.flush(LONG_S)
        assert found(server) == list(range(50))


def test_post_before_first_sight_of_redis_waits(server: RedisServer) -> None:
    settings = Settings(redis_url=server.url)
    load(settings, [node(1), node(2)])
    server.stop()
    with Clusterer(1, settings=settings) as cluster:
        assert cluster.post(1, PROTO_BIN, numbered(cluster, 0)) == 0
        assert cluster.post(9, PROTO_BIN, numbered(cluster, 1)) == 0
        post(cluster, [2])
        server.start()
        assert cluster.flush(LONG_S)
        assert found(server) == [0, 2]
        assert cluster.sender.counts.refused == 1
        assert cluster.post(1, PROTO_BIN, numbered(cluster, 3)) == 1


def test_post_close_without_redis_ends_and_says_so(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    with instance(server) as cluster:
        server.stop()
        post(cluster, range(5))
        with caplog.at_level(logging.WARNING, "clusterer.sending"):
            cluster.close()
        assert "sender 1: closed with 5 posted packets left" in caplog.text
        assert cluster.sender.counts.dropped == 5
        assert cluster.sender.waiting_bytes == 0


def test_post_in_child_forked_in_an_outage(server: RedisServer) -> None:
    with instance(server) as cluster:
        server.stop()
        post(cluster, [1])

        def child() -> bool:
            post(cluster, [100, 101])
            return cluster.flush(LONG_S)

        pid = fork(child)
        server.start()
        assert result_of(pid, LONG_S) == 0
        assert cluster.flush(LONG_S)
        assert sorted(found(server)) == [0, 1, 100, 101]


def test_post_flush_that_times_out_leaves_nothing(server: RedisServer) -> None:
    with instance(server) as cluster:
        server.stop()
        post(cluster, [1])
        for _ in range(3):
            assert not cluster.flush(0.01)
            assert not cluster.flush(0)
        (entry,) = cluster.sender._queue._entries
        assert entry.waiters == []
        server.start()
        assert cluster.flush(LONG_S)
        assert found(server) == [0, 1]


def test_post_survives_a_round_that_fails_for_a_bug(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with instance(server) as cluster:
        packets = cluster.sender._packets
        run, failures = packets._channel.run_each, iter(range(3))

        def fail(*arguments: Any) -> list[Any]:
            if next(failures, None) is not None:
                raise RuntimeError("a bug")
            return run(*arguments)

        monkeypatch.setattr(packets._channel, "run_each", fail)
        post(cluster, [1, 2])
        assert cluster.flush(LONG_S)
        assert found(server) == [0, 1, 2]
