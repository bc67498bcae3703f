"""An instance whose process forks, as pre-forking servers do: at any moment, Redis slow or not."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from clusterer import PROTO_BIN, Clusterer, ClustererError, Settings
from tests.support.forked import fork, in_child, result_of
from tests.support.listening import Recorded, ended, peer, send_until
from tests.support.processes import EVENTUALLY_S, wait_until
from tests.support.redis_server import RedisServer
from tests.support.seeding import make_node, put_node

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def cluster(redis_url: str, port: int) -> Iterator[Clusterer]:
    patient = f"{redis_url}?socket_timeout=30"  # however busy the machine is
    with Clusterer(settings=Settings(redis_url=patient, server_id=1)) as made:
        yield made


def test_fork_beside_busy_threads_leaves_a_child_that_works(redis_url: str, port: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.forking", redis_url, "40"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=110,
        check=True,
    )
    result = json.loads(done.stdout)
    assert (result["hung"], result["failed"], result["errors"]) == (0, [], []), done.stderr[-3000:]
    assert result["sends after"] > 0, "the parent goes on"


def use(cluster: Clusterer) -> bool:
    packet = cluster.packet("test", 1).build()
    ids = [node.machine_id for node in cluster.get_nodes(1, PROTO_BIN)]
    known = cluster.check(1, ("127.0.0.2", 1), 2, PROTO_BIN)
    return (ids, known, cluster.send_to(1, PROTO_BIN, packet)) == ([2, 3], 1, 2)


def test_fork_while_threads_wait_for_redis_leaves_child_usable(
    cluster: Clusterer, redis_server: RedisServer, redis_client: redis.Redis
) -> None:
    assert use(cluster)
    packet = cluster.packet("test", 1).build()
    sequence = int(redis_client.hget("clusterer:counters:1", "sequence") or 0)
    senders = [
        threading.Thread(target=cluster.send_many, args=(1, PROTO_BIN, [packet] * 3))
        for _ in range(4)
    ]
    redis_server.pause()
    try:
        for sender in senders:
            sender.start()
        time.sleep(1)  # the refresher waits for Redis, one sender too, the others for that one
        pid = fork(lambda: use(cluster))
    finally:
        redis_server.resume()
    assert result_of(pid) == 0
    for sender in senders:
        sender.join(EVENTUALLY_S)
    assert use(cluster)
    sent = int(redis_client.hget("clusterer:counters:1", "sequence") or 0) - sequence
    assert sent == 4 * 3 + 2, "each packet once, by the process that was given it"


def test_fork_of_a_fork_sees_changes(cluster: Clusterer, redis_client: redis.Redis) -> None:
    assert use(cluster)

    def grandchild() -> bool:
        put_node(redis_client, make_node(4, port=5555))
        wait_until(lambda: len(cluster.get_nodes(1, PROTO_BIN)) == 3, message="the new node")
        return True

    assert in_child(lambda: use(cluster) and in_child(grandchild) == 0) == 0
    wait_until(lambda: len(cluster.get_nodes(1, PROTO_BIN)) == 3, message="the new node")


def test_fork_child_of_serving_instance_leaves_sockets(cluster: Clusterer, port: int) -> None:
    recorded = Recorded()
    cluster.register_module("ratelimit", PROTO_BIN, recorded, 0, False, 1)
    thread = threading.Thread(target=cluster.serve)
    thread.start()
    assert cluster.listener.ready.wait(EVENTUALLY_S)
    reader, writer = os.pipe()

    def child() -> bool:
        with pytest.raises(ClustererError, match="make another Clusterer in this process"):
            cluster.register_module("other", PROTO_BIN, recorded, 0, False, 1)
        with pytest.raises(ClustererError, match="make another Clusterer in this process"):
            cluster.serve()
        cluster.stop()
        works = use(cluster)
        cluster.close()
        os.write(writer, b"1" if works else b"0")
        time.sleep(60)
        return True

    with peer(port) as connection:
        send_until(connection, recorded, 0, 2)
        pid = fork(child)
        try:
            assert os.read(reader, 1) == b"1"
            send_until(connection, recorded, 1, 2)  # the parent receives as before
            cluster.close()
            thread.join(EVENTUALLY_S)
            assert not thread.is_alive()
            connection.settimeout(EVENTUALLY_S)
            assert ended(connection), "the child holds the connection"
            with socket.create_server(("127.0.0.1", port)):
                pass
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(reader)
            os.close(writer)


def test_child_of_an_instance_that_does_not_serve_may_serve(cluster: Clusterer, port: int) -> None:
    assert use(cluster)
    assert not cluster.listener.ready.is_set()

    def child() -> bool:
        recorded = Recorded()
        cluster.register_module("ratelimit", PROTO_BIN, recorded, 0, False, 1)
        threading.Thread(target=cluster.serve, daemon=True).start()
        assert cluster.listener.ready.wait(EVENTUALLY_S)
        with peer(port) as connection:
            send_until(connection, recorded, 0, 2)
        return True

    assert in_child(child) == 0
