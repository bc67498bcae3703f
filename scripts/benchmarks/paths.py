"""The three ways from a sender to the nodes' sockets, made comparable round by round."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median

from scripts.benchmarks.plan import Plan
from scripts.benchmarks.processes import Child, Process, cpu_s
from scripts.benchmarks.roles.receivers import Receivers
from scripts.benchmarks.roles.rivals import NAIVE_QUEUE, BareReader, BareSender, NaiveSender
from scripts.benchmarks.roles.senders import Senders
from scripts.benchmarks.system import NODES, SENDER, System

POST = 0
"""Stands for the number of packets in a call: calls of `post`, with one packet each."""


def paired_ratio(ours: Sequence[float], others: Sequence[float]) -> float:
    """Return the median of the ratios of rounds that ran next to each other."""
    return median(one / other for one, other in zip(ours, others, strict=False))


@dataclass(slots=True)
class Path:
    """One way; `run` adds a round."""

    name: str
    system: System
    processes: Sequence[Process]
    send: Callable[[int], int]
    """Sends so many packets; returns when the first call began (monotonic ns)."""
    server: int = 0
    """pid of the server that stands between; 0: of Redis."""
    receivers: Child[Receivers] | None = None
    """Other receivers than the usual ones."""
    nodes: int = NODES
    rates: list[float] = field(default_factory=list)
    """Deliveries per second of each round: until the last byte is at the last node."""
    cpu_us: list[float] = field(default_factory=list)
    """CPU time per delivery of sender, worker and Redis, of each round."""

    def warm_up(self, packets: int) -> None:
        """Send packets that do not count: processes connect and load their code."""
        what = f"{self.name}, warming up"
        with self.system.arrival_of(packets * self.nodes, what, at=self.receivers):
            self.send(packets)

    def run(self, packets: int) -> None:
        """Send ``packets`` and wait until all have arrived."""
        deliveries = packets * self.nodes
        cpu = self._cpu_s()
        with self.system.arrival_of(deliveries, self.name, at=self.receivers):
            began = self.send(packets)
        took_ns = self.system.last_arrival_ns(self.receivers) - began
        self.rates.append(deliveries * 1e9 / took_ns)
        self.cpu_us.append((self._cpu_s() - cpu) * 1e6 / deliveries)

    def figures(self) -> dict[str, float | list[float]]:
        """Return medians, and the lowest and highest rate."""
        return {
            "deliveries_per_s": median(self.rates),
            "packets_per_s": median(self.rates) / self.nodes,
            "cpu_us_per_delivery": median(self.cpu_us),
            "spread": [min(self.rates), max(self.rates)],
        }

    def _cpu_s(self) -> float:
        return sum(
            map(cpu_s, [self.server or self.system.redis.pid, *(p.pid for p in self.processes)])
        )


def in_turns(plan: Plan, *ways: tuple[Path, int]) -> None:
    """Warm all ways up, then run them round by round, each with its number of packets."""
    for path, packets in ways:
        path.warm_up(packets // 10)
    for _ in plan.turns():
        for path, packets in ways:
            path.run(packets)


def ours(system: System, started: tuple[Process, Child[Senders]], size: int) -> Path:
    """Calls of `System.one_sender` with ``size`` packets each (1: `send_to`, `POST`: `post`)."""
    _, child = started
    if size == POST:
        return Path("post", system, started, lambda n: child.call(Senders.post, SENDER, n))
    if size == 1:
        return Path("send_to", system, started, lambda n: child.call(Senders.single, SENDER, n))
    return Path("send_many", system, started, lambda n: child.call(Senders.batch, SENDER, n, size))


def limit(system: System, size: int) -> Path:
    """The bare limit with the same calls."""
    reader = system.child(BareReader, system.redis.url, system.ports[:NODES])
    reader.begin(BareReader.run)
    child = system.child(BareSender, system.redis.url)
    return Path(
        "bare limit", system, [reader, child], lambda n: child.call(BareSender.send, n, size)
    )


def naive(system: System) -> Path:
    """One RQ job per packet and node, done by RQ's own worker."""
    url, ports = system.redis.url, system.ports[:NODES]
    options = ["-q", "-u", url, "-w", "rq.SimpleWorker", "-S", "json", NAIVE_QUEUE]
    worker = system.process("rq.cli", "worker", *options)
    child = system.child(NaiveSender, url)
    return Path("naive", system, [worker, child], lambda n: child.call(NaiveSender.send, n, ports))
