"""SIGTERM in the middle of work: every process ends by itself within five seconds.

`clusterer up` is in test_up, `top` on its terminal in test_live.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from rq.registry import StartedJobRegistry

from clusterer import Clusterer
from clusterer.membership import Event, State
from clusterer.services import Context
from clusterer.services.table import reload
from clusterer.settings import DATABASE_QUEUE, Settings, as_environment
from clusterer.store import Cause, ClusterKey, keys
from tests.support.cluster import delivering, load, node, node_for, numbers
from tests.support.frames import frame
from tests.support.mariadb_server import MariaDBServer
from tests.support.ports import free_port
from tests.support.processes import EVENTUALLY_S, LATE_S, ChildProcess, spawn, wait_until
from tests.support.provisioning import NODE_A, NODE_B, contexts, provision
from tests.support.receiver import BinReceiver

STOP_WITHIN_S = 5.0


def process(settings: Settings, *arguments: str) -> contextlib.AbstractContextManager[ChildProcess]:
    return spawn(["-m", *arguments], as_environment(settings))


def assert_ends_in_time(child: ChildProcess) -> None:
    began = time.monotonic()
    assert child.terminate() == 0, child.output()
    took_s = time.monotonic() - began
    assert took_s < STOP_WITHIN_S + LATE_S
    assert "Traceback" not in child.output()


@contextlib.contextmanager
def sending(instance: Clusterer) -> Iterator[list[int]]:
    """Send numbered packets of 2 kB from a thread; yields the numbers accepted so far."""
    enough = threading.Event()
    sent: list[int] = []

    def work() -> None:
        while not enough.wait(0.002):
            numbered = range(len(sent), len(sent) + 10)
            packets = [
                instance.packet("test", 1).push_int(n).push_str(b"x" * 2000).build()
                for n in numbered
            ]
            instance.send_many(1, "bin", packets)
            sent.extend(numbered)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield sent
    finally:
        enough.set()
        thread.join(EVENTUALLY_S)


@pytest.mark.parametrize("send_timeout", [2.0, 30.0])
def test_delivery_worker_with_stuck_peer_stops_in_time(
    redis_client: redis.Redis, redis_url: str, send_timeout: float
) -> None:
    settings = Settings(redis_url=redis_url, send_timeout=send_timeout)
    with contextlib.ExitStack() as stack:
        stuck = stack.enter_context(BinReceiver(receive_buffer=4096))
        healthy = stack.enter_context(BinReceiver())
        load(settings, [node(1), node_for(2, stuck), node_for(3, healthy)])
        instance = stack.enter_context(Clusterer(1, settings=settings))
        with process(settings, "workers", "delivery") as child:
            with sending(instance) as sent:
                stuck.wait_for_frames(1)
                stuck.pause()
                seen = healthy.frame_count
                healthy.wait_for_frames(seen + 200)
                assert_ends_in_time(child)
            assert not redis_client.exists(keys.lease(1)), "given back"
        stuck.resume()
        with delivering(settings):
            wait_until(
                lambda: {*sent} <= {*numbers(healthy)} & {*numbers(stuck)}, message="all there"
            )
        assert numbers(healthy) == sent, "nothing lost, nothing twice, in order"


def test_instance_flooded_stops_in_time(redis_client: redis.Redis, redis_url: str) -> None:
    settings = Settings(redis_url=redis_url, server_id=1, accept_pipes_from=1)
    port = free_port()
    load(settings, [node(1, port), node(2)])
    flood = frame(0, size=200, sender=2) * 300
    with process(settings, "clusterer", "node") as child:
        peer = wait_until(lambda: _connected(port), message="it listens")
        with peer:
            ended = threading.Event()

            def push() -> None:
                with contextlib.suppress(OSError):
                    while not ended.is_set():
                        peer.sendall(flood)

            pusher = threading.Thread(target=push)
            pusher.start()
            assert_ends_in_time(child)
            ended.set()
            pusher.join(EVENTUALLY_S)


def _connected(port: int) -> socket.socket | None:
    try:
        return socket.create_connection(("127.0.0.1", port), 1)
    except OSError:
        return None


def test_maintenance_worker_probing_silent_nodes_stops_in_time(
    redis_client: redis.Redis, redis_url: str
) -> None:
    settings = Settings(redis_url=redis_url)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as deaf:
        port = deaf.getsockname()[1]
        full = [socket.socket() for _ in range(3)]
        for each in full:
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", port))
        suspects = [
            node(m, port, failed_attempts=1000, state=State.PROBING, no_tries=1)
            for m in range(2, 102)
        ]
        load(settings, [node(1), *suspects])
        with (
            process(settings, "scheduler") as scheduler,
            process(settings, "workers", "maintenance") as child,
        ):
            wait_until(lambda: _tries(redis_client) > 2, message="probes that fail")
            assert_ends_in_time(child)
            assert_ends_in_time(scheduler)
        for each in full:
            each.close()


def _tries(client: redis.Redis) -> int:
    return int(client.hget(keys.node(1, "bin", 2), "no_tries") or 0)


def test_database_worker_database_frozen_stops_in_time(
    mariadb_server: MariaDBServer, mariadb_url: str, redis_client: redis.Redis, redis_url: str
) -> None:
    settings = Settings(redis_url=redis_url, db_url=mariadb_url, persistent_mode=True)
    with (
        contexts(db_url=mariadb_url, redis_url=redis_url, persistent_mode=True) as make,
        contextlib.ExitStack() as stack,
    ):
        context = make()
        provision(context, NODE_A, NODE_B)
        reload.run(context)
        key, dirty = ClusterKey(1, "bin"), keys.dirty(1, "bin")
        context.nodes.command(key, 2, Event.SET_DOWN, Cause("test"))
        stack.enter_context(process(settings, "scheduler"))
        worker = stack.enter_context(process(settings, "workers", "database"))
        running = StartedJobRegistry(DATABASE_QUEUE, redis_client)
        # The first job also imports the driver, for which a busy host takes seconds.
        wait_until(
            lambda: not redis_client.exists(dirty) and not running.get_job_ids(cleanup=False),
            message="the first change is written, and the connection closed",
        )
        mariadb_server.pause()
        context.nodes.command(key, 2, Event.SET_UP, Cause("test"))
        wait_until(
            lambda: running.get_job_ids(cleanup=False), message="a job waits for the database"
        )
        assert_ends_in_time(worker)
        assert redis_client.zcard(dirty) == 1, "to be written later"


def test_mi_with_silent_clients_stops_in_time(
    redis_client: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    settings = Settings(redis_url=redis_url, server_id=1, data_dir=str(tmp_path))
    load(settings, [node(1), node(2)])
    fifo, port = tmp_path / "fifo", free_port()
    os.mkfifo(tmp_path / "reply")
    options = ["--fifo", str(fifo), "--reply-dir", str(tmp_path), "--http", str(port)]
    with process(settings, "clusterer", "mi", *options) as child:
        wait_until(fifo.exists)
        with wait_until(lambda: _connected(port), message="HTTP") as half:
            half.sendall(b"POST /mi HTTP/1.1\r\nContent-Length: 100\r\n\r\n{")
            fifo.write_text(":clusterer_list:reply\n\n" * 20)
            assert_ends_in_time(child)


@pytest.mark.parametrize("command", [("tail",), ("events", "--follow"), ("watch", "2")])
def test_endless_commands_stop_in_time(
    redis_client: redis.Redis, redis_url: str, command: tuple[str, ...]
) -> None:
    settings = Settings(redis_url=redis_url, server_id=1)
    port = free_port()
    load(settings, [node(1, port), node(2)])
    with (
        process(settings, "clusterer", "node"),
        wait_until(lambda: _connected(port), message="it listens") as peer,
        process(settings, "clusterer", *command) as child,
    ):
        peer.settimeout(EVENTUALLY_S)

        def shown() -> bool:
            peer.sendall(frame(0, size=200, sender=2) * 100)
            return bool(child.output())

        context = Context(settings)
        if command[0] == "events":
            context.nodes.command(ClusterKey(1, "bin"), 2, Event.SET_DOWN, Cause("test"))
        wait_until(shown, message="output")
        context.close()
        assert_ends_in_time(child)
