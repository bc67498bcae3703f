"""Nodes that write on the connections on which they only have to read."""

from __future__ import annotations

import select
import socket
import threading
from contextlib import suppress
from dataclasses import replace
from typing import Self

import pytest
import redis

from clusterer import Settings
from clusterer.delivery.link import MAX_UNASKED, READ_AT_ONCE, Link, UnaskedBytes
from clusterer.store.packets import PacketLog
from tests.support.cluster import (
    CLUSTER,
    assert_accounted,
    delivering,
    load,
    node,
    node_for,
    numbers,
    stat,
)
from tests.support.frames import frame
from tests.support.processes import EVENTUALLY_S, LATE_S, wait_until
from tests.support.receiver import BinReceiver

SETTINGS = {"linger": 0.3, "send_timeout": 1.0}


class Flooding:
    """A node that takes connections and writes on them as fast as it can."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host, self.port = self._listener.getsockname()
        self.connections = 0
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in list(self._threads):
            thread.join(EVENTUALLY_S)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                self._threads.append(threading.Thread(target=self._flood, args=(connection,)))
                self._threads[-1].start()

    @staticmethod
    def _flood(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while True:
                connection.sendall(bytes(1 << 20))


def check_until_it_ends(link: Link) -> None:
    while True:
        select.select([link], [], [], 5)
        link.check()


def test_link_reads_a_bounded_part_of_what_a_peer_writes() -> None:
    with Flooding() as peer:
        link = Link((peer.host, peer.port), None, 5.0)
        select.select([], [link], [], 5)
        link.finish_connecting()
        for _ in range(MAX_UNASKED // READ_AT_ONCE):
            before = link.unasked
            while link.unasked <= before:
                select.select([link], [], [], 5)
                link.check()
            assert link.unasked <= before + READ_AT_ONCE
        with pytest.raises(UnaskedBytes, match="bytes where BIN has no answer"):
            check_until_it_ends(link)
        link.close()


def test_node_that_writes_is_put_off_and_delays_no_other(
    settings: Settings, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    with BinReceiver() as good, Flooding() as bad, delivering(replace(settings, linger=30.0)):
        load(settings, [node(1), node_for(2, good), node(3, bad.port, bad.host)])
        log = PacketLog(settings, 1)
        for number in range(100):
            log.append(CLUSTER, [frame(number)])
            good.wait_for_frames(number + 1, LATE_S)
        wait_until(lambda: stat(redis_client, 3, "failed") >= 1, message="disconnected and counted")
        assert bad.connections <= 4, "a reconnect storm"
    assert numbers(good) == list(range(100))
    assert "node 3 (cluster 1:bin, bin:127.0.0.1" in caplog.text
    assert "bytes where BIN has no answer; connecting again in 1 s" in caplog.text
    assert_accounted(settings)


def test_node_that_writes_a_little_is_left_alone(
    settings: Settings, redis_client: redis.Redis
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as peer:
        load(settings, [node(1), node(2, peer.getsockname()[1])])
        log = PacketLog(settings, 1)
        with delivering(replace(settings, linger=30.0)):
            log.append(CLUSTER, [frame(0)])
            connection, _ = peer.accept()
            with connection:
                connection.sendall(bytes(60_000))
                for number in range(1, 20):
                    log.append(CLUSTER, [frame(number)])
                wait_until(lambda: stat(redis_client, 2, "sent") == 20, message="all sent")
    assert not stat(redis_client, 2, "failed")
