"""A small cluster of real processes with metrics, whose traffic a test steers."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from clusterer import Clusterer
from clusterer.errors import ClustererError
from clusterer.membership import Node
from clusterer.settings import Settings, as_environment
from tests.support.cluster import load, node, node_for
from tests.support.ports import free_port
from tests.support.processes import EVENTUALLY_S, ChildProcess, spawn
from tests.support.receiver import BinReceiver

COMMANDS = {
    "node": ("-m", "clusterer", "node", "--server-id", "1"),
    "delivery": ("-m", "workers", "delivery"),
    "maintenance": ("-m", "workers", "maintenance"),
    "scheduler": ("-m", "scheduler"),
}

PAUSE_S = 0.05
"""Between packets."""


class Laboratory:
    """Node 1 is a real instance, node 2 a receiver, for which the test itself sends."""

    def __init__(self, settings: Settings, stack: ExitStack) -> None:
        self.settings = settings
        self._stack = stack
        self._receiver = stack.enter_context(BinReceiver())
        self.node_port = free_port()
        """Where node 1 listens."""
        self._rows = [node(1, self.node_port), node_for(2, self._receiver)]
        load(settings, self._rows)
        self.ports = {name: free_port() for name in COMMANDS}
        """Of the processes' metrics."""
        self.processes: dict[str, ChildProcess] = {}
        for name in COMMANDS:
            self.start(name)
        self.sender = stack.enter_context(Clusterer(2, settings=settings))
        self.modules: tuple[str, ...] = ("ratelimit",)
        """Modules whose packets node 2 sends all the time."""

    def start(self, name: str) -> None:
        """Start one of the processes, again with the same port."""
        environment = as_environment(replace(self.settings, metrics_port=self.ports[name]))
        self.processes[name] = self._stack.enter_context(spawn(COMMANDS[name], environment))

    def add_dead_node(self) -> None:
        """Provision node 3, where no process listens."""
        self.add_node(node(3, free_port(), failed_attempts=2))

    def add_node(self, row: Node) -> None:
        """Provision one more node."""
        self._rows.append(row)
        load(self.settings, self._rows)

    def send(self, module: str, packets: int) -> None:
        """Send so many packets at once as node 2."""
        one = self.sender.packet(module, 0).build()
        self.sender.send_many(1, "bin", [one] * packets)

    def send_broken(self, packets: int) -> None:
        """Send so many packets of ratelimit at once whose pipe has no end."""
        one = self.sender.packet("ratelimit", 0).push_int(1000).build()
        self.sender.send_many(1, "bin", [one] * packets)

    def talk(self, stop: threading.Event) -> None:
        """Send a packet of each of `modules` again and again, also while Redis is away."""
        while not stop.wait(PAUSE_S):
            with contextlib.suppress(ClustererError):
                for module in self.modules:
                    self.send(module, 1)


@contextmanager
def laboratory(settings: Settings) -> Iterator[Laboratory]:
    """Run a laboratory for the length of a ``with`` block; from the main thread."""
    with ExitStack() as stack:
        lab = Laboratory(settings, stack)
        stop = threading.Event()
        thread = threading.Thread(target=lab.talk, args=(stop,), name="test-talk")
        thread.start()
        try:
            yield lab
        finally:
            stop.set()
            thread.join(EVENTUALLY_S)
