"""The three ways from a sender to the nodes' sockets, made comparable round by round."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median

from scripts.benchmarks.processes import Child, Process, cpu_s
from scripts.benchmarks.roles.receivers import Receivers
from scripts.benchmarks.roles.rivals import NAIVE_QUEUE, BareReader, BareSender, NaiveSender
from scripts.benchmarks.roles.senders import Senders
from scripts.benchmarks.system import System

SENDER = 1
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
    nodes: int
    processes: Sequence[Process]
    send: Callable[[int], int]
    """Sends so many packets; returns when the first call began (monotonic ns)."""
    server: int = 0
    """pid of the server that stands between; 0: of Redis."""
    receivers: Child[Receivers] | None = None
    """Other receivers than the usual ones."""
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


def ours_by_size(system: System, nodes: int, *sizes: int) -> list[Path]:
    """Paths of one sender and one worker, whose calls have so many packets."""
    system.provision(SENDER, nodes)
    worker, child = system.worker(), system.senders(SENDER)
    return [Path("ours", system, nodes, [worker, child], sending(child, n)) for n in sizes]


def sending(child: Child[Senders], size: int) -> Callable[[int], int]:
    """Return the function that sends packets, ``size`` a call (1: `send_to`, `POST`: `post`)."""

    def send(packets: int) -> int:
        if size == POST:
            return child.call(Senders.post, SENDER, packets)
        if size == 1:
            return child.call(Senders.single, SENDER, packets)
        return child.call(Senders.batch, SENDER, packets, size)

    return send


def limit(system: System, nodes: int, size: int) -> Path:
    """The bare limit with the same calls."""
    reader = system.child(BareReader, system.redis.url, system.ports[:nodes])
    reader.begin(BareReader.run)
    child = system.child(BareSender, system.redis.url)
    return Path(
        "bare limit",
        system,
        nodes,
        [reader, child],
        lambda packets: child.call(BareSender.send, packets, size),
    )


def naive(system: System, nodes: int) -> Path:
    """One RQ job per packet and node, done by RQ's own worker."""
    url = system.redis.url
    options = ["-q", "-u", url, "-w", "rq.SimpleWorker", "-S", "json", NAIVE_QUEUE]
    worker = system.process("rq.cli", "worker", *options)
    child = system.child(NaiveSender, url)
    return Path(
        "naive",
        system,
        nodes,
        [worker, child],
        lambda packets: child.call(NaiveSender.send, packets, system.ports[:nodes]),
    )
