"""Every process follows real sentinels through kills, failovers and a partition, under traffic."""

from __future__ import annotations

import threading
from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import redis

from clusterer import Clusterer, Settings, StateUnavailable
from clusterer.settings import as_environment
from tests.support.cluster import assert_accounted, load, node, node_for, numbers, stat
from tests.support.failover import addresses_of, established
from tests.support.ports import free_port
from tests.support.processes import LATE_S, ChildProcess, spawn, wait_until
from tests.support.receiver import BinReceiver
from tests.support.redis_server import RedisServer
from tests.support.scale import scaled
from tests.support.sentinel import PATIENT_S, SentinelRedis

pytestmark = [pytest.mark.slow, pytest.mark.timeout(scaled(300, 1800))]

PACKETS_PER_S = 200
PROMISED_S = 5.0
"""After a promotion. What the tests measure includes their own waits for the processor."""
NODES = (2, 3, 4)
PROCESSES = {
    "delivery": ["-m", "workers", "delivery"],
    "maintenance": ["-m", "workers", "maintenance"],
    "database": ["-m", "workers", "database"],
    "scheduler": ["-m", "scheduler"],
    "node": ["-m", "clusterer", "node"],
    "watch": ["-m", "clusterer", "watch", "2"],
}


class Traffic:
    """A thread that sends numbered packets, and goes on with the next one after an error."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send, name="traffic")
        self.accepted: list[int] = []
        """Numbers of the packets for which `send_to` returned."""
        self.refused = 0
        self.accepted_at: list[float] = []

    def _send(self) -> None:
        with Clusterer(1, settings=self._settings) as sender:
            number = 0
            while not self._stop.wait(1 / PACKETS_PER_S):
                packet = sender.packet("test", 1).push_int(number).build()
                try:
                    sender.send_to(1, "bin", packet)
                    self.accepted.append(number)
                    self.accepted_at.append(monotonic())
                except StateUnavailable:
                    self.refused += 1
                number += 1

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(PATIENT_S)


class Watched:
    """Servers, sentinels, all kinds of processes, three nodes, and traffic to them."""

    def __init__(self, stack: ExitStack, directory: Path, names: Sequence[str], **more: Any):
        self.redis = stack.enter_context(SentinelRedis())
        self.settings = Settings(
            redis_url=self.redis.url, server_id=1, data_dir=str(directory), linger=0.5, **more
        )
        self.peers = {i: stack.enter_context(BinReceiver()) for i in NODES}
        load(
            self.settings,
            [node(1, free_port()), *(node_for(i, peer) for i, peer in self.peers.items())],
        )
        environment = as_environment(self.settings)
        self.processes: dict[str, ChildProcess] = {
            name: stack.enter_context(spawn(PROCESSES[name], environment)) for name in names
        }
        self.traffic = Traffic(self.settings)
        stack.callback(self.traffic.stop)
        self.traffic.start()
        wait_until(lambda: all(map(numbers, self.peers.values())), PATIENT_S, "packets arrive")
        wait_until(lambda: len(self.following()) == len(names), PATIENT_S, "all are connected")

    def following(self) -> set[str]:
        """Return the processes that have connections to the master and to no other server."""
        master, connections = self.redis.master().address, established(self.redis.port)
        assert all(process.returncode is None for process in self.processes.values())
        return {
            name
            for name, process in self.processes.items()
            if addresses_of(process.pid, connections) == {master}
        }

    def wait_until_all_follow(
        self, old: RedisServer, what: str, then: Callable[[], object] | None = None
    ) -> None:
        """Wait for the promotion, and until each process and, after ``then``, the traffic follow.

        ``then`` ends what keeps Redis from taking packets.
        """
        promoted_at = self.redis.wait_for_promotion(old)
        took_s: dict[str, float] = {}

        def processes_follow() -> bool:
            looked_at = monotonic()
            for name in self.following() - took_s.keys():
                took_s[name] = looked_at - promoted_at
            return len(took_s) == len(self.processes)

        wait_until(processes_follow, PATIENT_S, f"all follow after {what}; so far {took_s}")
        if then is not None:
            then()
            promoted_at, what = monotonic(), f"{what}, replicas back"
        mark = {i: len(peer.packets) for i, peer in self.peers.items()}
        times = self.traffic.accepted_at
        wait_until(lambda: times[-1] > promoted_at, PATIENT_S, f"traffic after {what}")
        took_s["traffic"] = times[bisect(times, promoted_at)] - promoted_at
        wait_until(
            lambda: all(len(peer.packets) > mark[i] for i, peer in self.peers.items()),
            PATIENT_S,
            f"packets arrive after {what}",
        )
        shown = ", ".join(f"{name} {took:.2f}" for name, took in took_s.items())
        print(f"{what}: seconds after the promotion (promised {PROMISED_S:g}): {shown}")
        assert max(took_s.values()) < PROMISED_S + LATE_S, what

    def end(self) -> dict[int, int]:
        """Stop the traffic, check order and counts; return how many accepted packets each lacks."""
        self.traffic.stop()
        self.redis.make_whole()
        wait_until(self._is_delivered, PATIENT_S, "all packets are delivered or counted")
        assert_accounted(self.settings)
        for process in self.processes.values():
            assert process.returncode is None
            assert "Traceback" not in process.output()
        lacking = {}
        with self.redis.master().client() as client:
            for i, peer in self.peers.items():
                got = numbers(peer)
                first = list(dict.fromkeys(got))
                assert first == sorted(first), "in the order sent"
                lacking[i] = len(set(self.traffic.accepted) - set(got))
                print(
                    f"node {i}: accepted {len(self.traffic.accepted)}, refused "
                    f"{self.traffic.refused}, missing {lacking[i]}, "
                    f"counted as lost {stat(client, i, 'lost')}, twice {len(got) - len(first)}"
                )
                assert lacking[i] <= stat(client, i, "lost")
        return lacking

    def _is_delivered(self) -> bool:
        with suppress(redis.RedisError, AssertionError):
            assert_accounted(self.settings)
            with self.redis.master().client() as client:
                pending: set[bytes] = client.smembers(f"clusterer:pending:{QUEUE}")
                return not pending
        return False


QUEUE = Settings().delivery_queue


@contextmanager
def watched(directory: Path, names: Sequence[str], **more: Any) -> Iterator[Watched]:
    with ExitStack() as stack:
        yield Watched(stack, directory, names, **more)


def survive(found: Watched, rounds: int) -> None:
    """Kill the master and have the sentinels fail over in turn; the old master comes back."""
    for number in range(rounds):
        kill = number % 2 == 0
        old = found.redis.kill_master() if kill else found.redis.fail_over()
        what = f"round {number + 1}, {'SIGKILL' if kill else 'SENTINEL FAILOVER'}"
        # Without the old master there are fewer replicas than packets may have to wait for.
        waits = found.settings.wait_replicas > 0
        found.wait_until_all_follow(old, what, found.redis.make_whole if waits else None)
        found.redis.make_whole()


def test_sentinel_failovers_are_followed_by_all(tmp_path: Path) -> None:
    with watched(tmp_path, list(PROCESSES)) as found:
        survive(found, scaled(3, 20))
        found.end()


def test_sentinel_failovers_with_replicas_lose_nothing(tmp_path: Path) -> None:
    with watched(tmp_path, ["delivery", "maintenance", "scheduler"], wait_replicas=2) as found:
        survive(found, scaled(3, 20))
        assert found.end() == dict.fromkeys(NODES, 0)


@pytest.mark.parametrize("replicas", [0, 2])
def test_sentinel_partition_loses_only_what_is_counted(tmp_path: Path, replicas: int) -> None:
    """The old master takes writes until the processes have the sentinels' answer."""
    names = ["delivery", "maintenance", "scheduler"]
    with watched(tmp_path, names, wait_replicas=replicas) as found:
        with ExitStack() as cut:
            old = cut.enter_context(found.redis.partition())
            found.wait_until_all_follow(old, "partition", cut.close if replicas else None)
        lacking = found.end()
        if replicas:
            assert lacking == dict.fromkeys(NODES, 0)


def test_sentinel_partition_with_one_replica_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The old master keeps a replica, and so takes writes that must be on one replica.

    The delivery worker is stopped meanwhile: nodes cannot get what is lost.
    """
    names = ["delivery", "maintenance", "scheduler"]
    with watched(tmp_path, names, wait_replicas=1) as found:
        found.processes["delivery"].pause()
        with found.redis.partition(keep_one=True) as old:
            before = len(found.traffic.accepted)
            found.redis.wait_for_promotion(old)
            accepted = len(found.traffic.accepted) - before
        found.processes["delivery"].resume()
        found.wait_until_all_follow(old, "partition with a replica")
        lacking = found.end()
        print(f"accepted between partition and promotion: {accepted}")
        assert min(lacking.values()) > 0, "the test loses packets"
        assert "sender 1: Redis has lost " in caplog.text
