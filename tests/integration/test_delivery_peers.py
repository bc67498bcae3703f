"""Peers that vanish, close, reset, cannot be reached: who has failed, and when."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest
import redis

from clusterer.membership import Condition, Node
from clusterer.settings import Settings
from clusterer.store import NodeStore, keys
from clusterer.store.packets import PacketLog
from tests.support.cluster import CLUSTER, delivering, load, node, node_for, numbers, stat
from tests.support.frames import frame
from tests.support.processes import LATE_S, wait_until
from tests.support.receiver import BinReceiver, ReceivedConnection

IP = shutil.which("ip", path=f"{os.environ['PATH']}:/usr/sbin:/sbin") or ""


SETTINGS = {"linger": 0.3, "send_timeout": 1.0}


def read_node(settings: Settings, machine_id: int) -> Node:
    found, _ = NodeStore(settings).read(CLUSTER, machine_id)
    assert found is not None
    return found


def test_delivery_vanished_host_fails_within_send_timeout(
    settings: Settings, redis_client: redis.Redis
) -> None:
    settings = replace(settings, send_timeout=2.0)
    here, there = two_addresses()
    with other_host(here, there) as (run_there, vanish):
        peer = run_there()
        load(settings, [node(1, host=here), node(2, peer, host=there)])
        log = PacketLog(settings, 1)
        with delivering(settings):
            for number in range(10):
                log.append(CLUSTER, [frame(number)])
                time.sleep(0.1)
            wait_until(lambda: stat(redis_client, 2, "sent") == 10, message="sent")
            vanish()
            vanished_at = time.monotonic()
            sent = itertools.count(10)

            def failed() -> int:
                """Return the number of packets once node 2 is not up."""
                number = next(sent)
                log.append(CLUSTER, [frame(number)])
                return 0 if read_node(settings, 2).condition is Condition.UP else number + 1

            number = wait_until(failed, message="node 2 is not up")
            took = time.monotonic() - vanished_at
            wait_until(
                lambda: stat(redis_client, 2, "sent") + stat(redis_client, 2, "skipped") == number,
                message="every packet is accounted for",
            )
    assert took <= settings.send_timeout + LATE_S
    assert stat(redis_client, 2, "sent") == 10, "what the vanished host never acknowledged counts"


def two_addresses() -> tuple[str, str]:
    """Return addresses of a network that no test of another process makes at the same time."""
    high, low = divmod(os.getpid() % (50 * 256), 256)
    return f"10.{200 + high}.{low}.1", f"10.{200 + high}.{low}.2"


@contextlib.contextmanager
def other_host(  # noqa: C901  a host, from its making to its end
    here: str, there: str, count_to: int = 0
) -> Iterator[tuple[Callable[[], int], Callable[[], None]]]:
    """Give another host in a network namespace: start a listener there, take its address away.

    At the end the host is gone as one that is switched off. With ``count_to`` it must get exactly
    so many frames first.
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

    def got() -> int:
        """Return how many bytes have arrived, as the listeners print."""
        for one in process:
            assert one.stdout is not None
            with contextlib.suppress(BlockingIOError):
                printed.extend(os.read(one.stdout.fileno(), 65536).split())
        return sum(map(int, printed))

    printed: list[bytes] = []
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
            os.set_blocking(one.stdout.fileno(), False)
            return 5566

        yield listen, lambda: ip("-n", name, "addr", "del", f"{there}/24", "dev", f"{link}p")
        if count_to:
            wait_until(lambda: got() >= count_to * len(frame(0)), message="all frames have arrived")
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            ip("link", "del", link)
        for one in process:
            one.kill()
            one.wait()
            got()
        for one in process:
            assert one.stdout is not None
            one.stdout.close()
        ip("netns", "del", name)
    assert not count_to or sum(map(int, printed)) == count_to * len(frame(0))


def test_delivery_host_restarted_gets_next_packet_once(
    settings: Settings, redis_client: redis.Redis
) -> None:
    """The peer sends no FIN: the first write meets a reset, and its bytes are written again."""
    settings = replace(settings, send_timeout=2.0, linger=30.0)
    addresses = two_addresses()
    with ExitStack() as stack:
        with other_host(*addresses, count_to=3) as (run_there, _):
            load(settings, [node(1, host=addresses[0]), node(2, run_there(), host=addresses[1])])
            log = PacketLog(settings, 1)
            stack.enter_context(delivering(settings))
            for number in range(3):
                log.append(CLUSTER, [frame(number)])
            wait_until(lambda: stat(redis_client, 2, "sent") == 3, message="sent")
        with other_host(*addresses, count_to=2) as (run_there, _):
            time.sleep(1.1)  # older than a connection whose end counts against the node
            run_there()
            log.append(CLUSTER, [frame(3)])
            log.append(CLUSTER, [frame(4)])
            wait_until(lambda: stat(redis_client, 2, "sent") == 5, message="sent")
            assert stat(redis_client, 2, "failed") == 0
    assert read_node(settings, 2).no_tries == 0


def test_delivery_peer_closing_idle_connections_never_fails(
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
                wait_until(lambda: not peer.open_connections, message="closed")
    assert numbers(peer) == [0, 1, 2]
    assert stat(redis_client, 2, "failed") == 0
    assert read_node(settings, 2).no_tries == 0


class Slamming(BinReceiver):
    """Ends each connection with a reset as soon as something has arrived, ``times`` times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.left = times

    def _read(self, connection: ReceivedConnection) -> bool:
        read = super()._read(connection)
        if connection.packets and self.left:
            self.left -= 1
            self.reset_connections()
        return read and not connection.ended


@pytest.mark.parametrize(("times", "failures"), [(1, 0), (1000, 1)])
def test_delivery_new_connection_ended_twice_is_failure(
    settings: Settings, redis_client: redis.Redis, times: int, failures: int
) -> None:
    with Slamming(times) as peer, delivering(replace(settings, linger=30.0)):
        load(settings, [node(1), node_for(2, peer, failed_attempts=9)])
        log = PacketLog(settings, 1)
        for number in range(10):
            log.append(CLUSTER, [frame(number)])
            wait_until(
                lambda n=number: settled(redis_client) == n + 1,  # type: ignore[misc]
                message="on its way or skipped",
            )
            wait_until(lambda: times == 1 or not peer.open_connections, message="slammed")
        assert stat(redis_client, 2, "failed") == failures
        assert read_node(settings, 2).no_tries == failures


def settled(client: redis.Redis) -> int:
    return stat(client, 2, "sent") + stat(client, 2, "skipped")


def test_delivery_unroutable_peer_fails_and_delays_no_other(settings: Settings) -> None:
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
        with delivering(replace(settings, send_timeout=2 * LATE_S)):
            for number in range(100):
                log.append(CLUSTER, [frame(number)])
            alive.wait_for_frames(100, LATE_S)
            wait_until(
                lambda: read_node(settings, 2).condition is Condition.PROBING, message="probing"
            )
        for filler in fillers:
            filler.close()


def test_delivery_failure_seen_by_three_workers_counts_once(
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
        wait_until(lambda: read_node(settings, 2).no_tries, message="failure seen")
        wait_until(
            lambda: not any(redis_client.exists(keys.lease(s)) for s in senders), message="all done"
        )
    assert read_node(settings, 2).no_tries == 1
