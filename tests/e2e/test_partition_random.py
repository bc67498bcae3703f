"""Links, workers and Redis break at random: whole links skip nothing, each packet is counted."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Iterator

import pytest

from clusterer.services.status import node_list
from tests.support.cluster import assert_accounted, at_rest
from tests.support.hosts import Hosts
from tests.support.partitions import assert_healed, assert_nothing_skipped, broken, fallen, watch
from tests.support.processes import wait_until
from tests.support.scale import scaled

pytestmark = [pytest.mark.netns, pytest.mark.hosts, pytest.mark.slow, pytest.mark.timeout(600)]

SEEDS = range(scaled(1, 3))
STEPS = scaled(6, 16)
WHOLE = {(1, 2), (2, 1)}
"""Hosts a and b are always well, and so is the link between them."""


class Faults:
    """Breaks what has to do with hosts c and d."""

    def __init__(self, hosts: Hosts, seed: int) -> None:
        self.hosts = hosts
        self.rng = random.Random(seed)
        self.did: list[str] = []

    def _link(self) -> tuple[str, str]:
        return self.rng.choice([("a", "c"), ("b", "c"), ("a", "d"), ("b", "d"), ("c", "d")])

    def link_is_cut(self) -> None:
        self.hosts.network.cut(*self._link())

    def link_is_cut_one_way(self) -> None:
        self.hosts.network.drop(*self.rng.sample(self._link(), 2))

    def link_loses_packets(self) -> None:
        self.hosts.network.lose(*self._link(), 0.3)

    def host_is_cut_off(self) -> None:
        self.hosts.network.isolate(self.rng.choice("cd"))

    def worker_freezes(self) -> None:
        host = self.rng.choice("cd")
        self.hosts.signal(host, "delivery", signal.SIGSTOP)
        watch(self.rng.choice((0.5, 2.0, 4.0)))
        self.hosts.signal(host, "delivery", signal.SIGCONT)

    def worker_dies(self) -> None:
        host = self.rng.choice("cd")
        self.hosts.kill(host, "delivery")
        watch(self.rng.choice((0.0, 1.0, 4.0)))
        self.hosts.start(host, "delivery")

    def instance_dies(self) -> None:
        host, machine_id = self.rng.choice([("c", 3), ("d", 4)])
        self.hosts.kill(host, f"instance {machine_id}")
        watch(self.rng.choice((0.0, 1.0, 4.0)))
        self.hosts.start(host, f"instance {machine_id}")

    def redis_restarts(self) -> None:
        self.hosts.stop("hub", "redis")
        watch(self.rng.choice((0.0, 2.0, 5.0)))
        self.hosts.start_redis()

    def all_is_mended(self) -> None:
        self.hosts.network.heal()

    def step(self) -> None:
        """Let one thing happen."""
        links: list[Callable[[], None]] = [
            self.link_is_cut,
            self.link_is_cut_one_way,
            self.link_loses_packets,
            self.host_is_cut_off,
            self.all_is_mended,
        ]
        others = [self.worker_freezes, self.worker_dies, self.instance_dies, self.redis_restarts]
        chosen = self.rng.choice(others if self.rng.random() < 0.3 else links)
        self.did.append(chosen.__name__)
        chosen()
        watch(self.rng.choice((0.5, 1.5, 3.0)))


@pytest.fixture(scope="module")
def four() -> Iterator[Hosts]:
    with Hosts({"a": (1,), "b": (2,), "c": (3,), "d": (4,)}, linger=1.0) as hosts:
        yield hosts


@pytest.mark.parametrize("seed", SEEDS)
def test_random_faults_packets_are_accounted(four: Hosts, seed: int) -> None:
    four.wait_until_ready()
    mark, faults = four.mark(), Faults(four, seed)
    for _ in range(STEPS):
        faults.step()
    print(faults.did)
    assert_nothing_skipped(four, mark, WHOLE)
    assert_healed(four)
    assert fallen(four, mark) <= {3, 4}
    assert not broken(four, mark) & WHOLE
    assert_all_counted(four)


def assert_all_counted(hosts: Hosts) -> None:
    """Let all instances rest, check that each packet is counted, and let them send again."""
    names = [(h, f"instance {m}") for m, h in hosts.host_of.items()]
    for host, name in names:
        hosts.signal(host, name, signal.SIGUSR1)

    def resting() -> bool:
        found = node_list.run(hosts.context).traffic
        return all(item.backlog == 0 for item in found) and all(
            at_rest(hosts.settings, sender) for sender in hosts.host_of
        )

    wait_until(resting, message="nothing is under way")
    assert_accounted(hosts.settings)
    for host, name in names:
        hosts.signal(host, name, signal.SIGUSR2)
    hosts.wait_until_sending()
