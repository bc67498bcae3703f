"""Trouble on the worker's own side: no node is blamed for it, and nothing is lost."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
import redis

from clusterer import jobs
from clusterer.membership import Condition
from clusterer.runtime.descriptors import OTHER_FILES
from clusterer.services.periodic.reach import ping_all
from clusterer.settings import Settings, as_environment
from clusterer.store import NodeStore, keys
from clusterer.store.packets import PacketLog
from tests.support.cluster import CLUSTER, delivering, load, node, node_for, numbers, stat
from tests.support.frames import frame
from tests.support.processes import spawn, wait_until
from tests.support.receiver import BinReceiver

IP = shutil.which("ip", path=f"{os.environ['PATH']}:/usr/sbin:/sbin") or ""
NODES = 200


def files_of(pid: int | str) -> int:
    """Return the highest descriptor that a process has open."""
    return max(int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir())


def test_delivery_without_descriptors_fails_no_node(
    redis_client: redis.Redis, redis_url: str
) -> None:
    settings = Settings(redis_url=redis_url, server_id=1, linger=30.0, send_timeout=1.0)
    with ExitStack() as stack:
        peer = stack.enter_context(BinReceiver())
        load(settings, [node(1), *(node_for(m, peer) for m in range(2, NODES + 2))])
        worker = stack.enter_context(spawn(["-m", "workers", "delivery"], as_environment(settings)))
        wait_until(lambda: "takes jobs" in worker.output(), message="worker runs")
        log, queue = PacketLog(settings, 1), settings.delivery_queue
        limits = resource.prlimit(worker.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (OTHER_FILES + 60, limits[1]))
        if log.append(CLUSTER, [frame(0)]):
            jobs.enqueue_delivery(queue, jobs.connect(settings))
        wait_until(lambda: "may not have more open" in worker.output(), message="said so")
        peer.wait_for_frames(50)
        assert peer.frame_count < NODES
        log.append(CLUSTER, [frame(1)])
        resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, limits)
        peer.wait_for_frames(2 * NODES)
        wait_until(lambda: total(redis_client, "sent") == 2 * NODES, message="counted")
    assert sorted(numbers(peer)) == [0] * NODES + [1] * NODES
    assert total(redis_client, "failed") == total(redis_client, "skipped") == 0
    nodes = NodeStore(settings).view(CLUSTER).nodes.values()
    conditions = {n.condition for n in nodes if n.machine_id != 1}  # no process listens at node 1
    assert conditions == {Condition.UP}, worker.output()


def total(client: redis.Redis, name: str) -> int:
    return sum(stat(client, machine, name) for machine in range(2, NODES + 2))


@contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """Let this process open only ``count`` files more."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(list(Path("/proc/self/fd").iterdir())) - 1
    gaps = files_of("self") + 1 - used
    held = [os.open("/dev/null", os.O_RDONLY) for _ in range(gaps + count)]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files_of("self") + 1, limits[1]))
        for _ in range(count):
            os.close(held.pop())
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for one in held:
            os.close(one)


@contextmanager
def own_address(ip: str) -> Iterator[Callable[[str], None]]:
    """Give this host an address; the function gives and takes it (``add``, ``del``)."""

    def change(word: str) -> None:
        words = [IP, "addr", word, f"{ip}/32", "dev", "lo"]
        done = subprocess.run(words, check=False, capture_output=True, text=True)
        if done.returncode and word == "add":
            pytest.skip(f"addresses cannot be given here: {done.stderr}")

    if os.geteuid() != 0 or not IP:
        pytest.skip("addresses need root and iproute2")
    change("add")
    try:
        yield change
    finally:
        change("del")


def test_delivery_sender_address_removed_fails_no_node(
    redis_client: redis.Redis, redis_url: str
) -> None:
    """As a floating address does: another host's worker is to go on, from there."""
    settings = Settings(redis_url=redis_url, linger=30.0, send_timeout=0.5)
    with own_address("10.213.8.1") as change, BinReceiver() as peer:
        load(settings, [node(1, host="10.213.8.1"), node_for(2, peer)])
        with closing(PacketLog(settings, 1)) as log, delivering(settings):
            log.append(CLUSTER, [frame(0)])
            peer.wait_for_frames(1)
            change("del")
            log.append(CLUSTER, [frame(n) for n in range(1, 11)])
            wait_until(lambda: not redis_client.exists(keys.lease(1)), message="given up")
            assert redis_client.sismember(keys.pending(settings.delivery_queue), "1")
            assert stat(redis_client, 2, "failed") == 0
            assert {c.peer[0] for c in peer.connections} == {"10.213.8.1"}
            change("add")
            wait_until(lambda: set(numbers(peer)) == set(range(11)), message="goes on")
            wait_until(lambda: stat(redis_client, 2, "sent") == 11, message="counted")
        assert {c.peer[0] for c in peer.connections} == {"10.213.8.1"}
    found, _ = NodeStore(settings).read(CLUSTER, 2)
    assert found is not None
    assert found.no_tries == 0


def test_worker_away_from_sender_leaves_log_alone(
    redis_client: redis.Redis, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(redis_url=redis_url, linger=30.0, send_timeout=0.5)
    with BinReceiver() as peer:
        load(settings, [node(1, host="192.0.2.77"), node_for(2, peer)])
        with closing(PacketLog(settings, 1)) as log, delivering(settings):
            log.append(CLUSTER, [frame(0)])
            wait_until(
                lambda: "sender 1: not delivered by this worker" in caplog.text, message="refused"
            )
            assert not redis_client.exists(keys.lease(1))
    found, _ = NodeStore(settings).read(CLUSTER, 2)
    assert found is not None
    assert found.condition is Condition.UP
    assert not peer.frame_count


def test_pings_take_turns_where_descriptors_are_short() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        nodes = [node(m, port if m % 2 else 1) for m in range(1, 41)]
        with descriptors_left(8):
            errors = ping_all(nodes)
    assert {machine for _, machine in errors} == set(range(2, 41, 2))
    assert set(errors.values()) == {"Connection refused"}
