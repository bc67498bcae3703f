"""The three ways from a sender to the nodes' sockets, made comparable round by round."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from scripts.benchmarks.children import Process
from scripts.benchmarks.system import Scene

SENDER = 1


@dataclass(frozen=True, slots=True)
class Round:
    """What one round took."""

    seconds: float
    """From the first call to the arrival of the last byte at the last node."""
    sending_s: float
    """The part of it in which the sender was sending."""
    deliveries: int
    cpu_s: float
    """CPU time of sender, worker and Redis."""

    @property
    def per_s(self) -> float:
        return self.deliveries / self.seconds

    @property
    def cpu_us(self) -> float:
        return self.cpu_s / self.deliveries * 1e6


@dataclass(slots=True)
class Path:
    """One way; `run` adds a round."""

    name: str
    scene: Scene
    nodes: int
    processes: Sequence[Process]
    send: Callable[[int], Any]
    """Sends so many packets; returns when it began and how long it took."""
    rounds: list[Round] = field(default_factory=list)

    def warm_up(self, packets: int) -> None:
        """Send something that does not count: connections are made, code is loaded."""
        before = self.scene.received()
        self.send(packets)
        self.scene.wait_for(before + packets * self.nodes, f"{self.name}, warming up")

    def run(self, packets: int) -> Round:
        """Send ``packets`` and wait until all have arrived."""
        deliveries = packets * self.nodes
        before, cpu = self.scene.received(), self._cpu_s()
        sent = self.send(packets)
        self.scene.wait_for(before + deliveries, self.name)
        seconds = (self.scene.shared.last_ns() - sent["started_ns"]) / 1e9
        done = Round(seconds, sent["seconds"], deliveries, self._cpu_s() - cpu)
        self.rounds.append(done)
        return done

    def rates(self) -> list[float]:
        """Return deliveries per second of all rounds."""
        return [one.per_s for one in self.rounds]

    def _cpu_s(self) -> float:
        return self.scene.redis_cpu_s() + sum(process.cpu_s for process in self.processes)


def ours(scene: Scene, nodes: int, size: int, sender: int = SENDER) -> Path:
    """Our path with calls of ``size`` packets (1: `send_to`)."""
    scene.provision(sender, nodes)
    worker, child = scene.worker(), scene.senders(sender)

    def send(packets: int) -> Any:
        if size == 1:
            return child.call("single", sender=sender, packets=packets)
        return child.call("batch", sender=sender, packets=packets, size=size)

    return Path("ours", scene, nodes, [worker, child], send)


def limit(scene: Scene, nodes: int, size: int) -> Path:
    """The bare limit with the same calls."""
    url = scene.settings.redis_url
    reader = scene.child("limit", url=url, ports=scene.system.ports[:nodes])
    child = scene.child("limit", url=url)
    reader.answer()
    child.answer()
    return Path(
        "bare limit",
        scene,
        nodes,
        [reader, child],
        lambda packets: child.call("send", packets=packets, size=size),
    )


def naive(scene: Scene, nodes: int) -> Path:
    """One RQ job per packet and node."""
    url = scene.settings.redis_url
    worker = scene.child("naive", url=url, worker=True)
    child = scene.child("naive", url=url)
    worker.answer()
    child.answer()
    ports = scene.system.ports[:nodes]
    return Path(
        "naive",
        scene,
        nodes,
        [worker, child],
        lambda packets: child.call("send", packets=packets, ports=ports),
    )
