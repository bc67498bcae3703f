"""What is measured: a Redis, receivers, nodes in Redis, and for each measurement its processes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import ParamSpec, TypeVar

from clusterer.membership import Node
from clusterer.settings import Settings, as_environment
from clusterer.store import ClusterKey
from scripts.benchmarks.processes import BenchmarkFailed, Child, Process, Program
from scripts.benchmarks.roles.receivers import Arrival, Receivers
from scripts.benchmarks.roles.senders import Senders
from tests.support.cluster import load
from tests.support.ports import free_port
from tests.support.processes import wait_until
from tests.support.redis_server import RedisServer

HOST = "127.0.0.1"
SENDER = 1
"""machine_id and cluster of a measurement's only sender."""
NODES = 4
"""Nodes to which a sender sends, where nothing else is said."""
MAX_NODES = 64
FIRST_RECEIVER = 100_000
"""machine_id of the first receiver; senders have smaller ones."""
ARRIVE_WITHIN_S = 60.0

P = ParamSpec("P")
R = TypeVar("R")
Started = TypeVar("Started", bound=Process)


class System:
    """A private Redis with an append-only file, and a process that plays up to 64 nodes."""

    def __init__(self, stack: ExitStack, *, metrics: bool = False) -> None:
        """``metrics``: delivery workers count for Prometheus."""
        self._metrics = metrics
        self._directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        self._processes: list[Process] = []
        self.redis = stack.enter_context(RedisServer())
        self.client = stack.enter_context(self.redis.client(timeout_s=60))
        # A rewrite in the middle of a round would be charged to the path that is measured.
        self.client.config_set("auto-aof-rewrite-percentage", 0)
        self.settings = Settings(redis_url=self.redis.url, data_dir=str(self._directory))
        self._receivers = Child(self._directory, {}, Receivers, MAX_NODES)
        stack.callback(self._receivers.end)
        self.ports = self._receivers.call(Receivers.ports)

    @contextmanager
    def measurement(self) -> Iterator[None]:
        """Begin with an empty Redis and no processes; at the end stop those that were started.

        The measurement may change `settings` for its processes.
        """
        self.client.flushall()
        usual = self.settings
        try:
            yield
        finally:
            self.settings = usual
            while self._processes:
                self._processes.pop().end()
            self._receivers.call(Receivers.record, on=False)

    def provision(
        self, sender: int, nodes: int, *, ports: Sequence[int] = (), own_port: int | None = 1
    ) -> None:
        """Make cluster ``sender``: the sender itself and ``nodes`` receivers.

        ``ports`` are further nodes that others play, ``own_port`` the sender's (None: no row).
        """
        where = {} if own_port is None else {sender: own_port}
        where |= dict(enumerate([*self.ports[:nodes], *ports], FIRST_RECEIVER))
        rows = [
            Node(number, sender, number, f"bin:{HOST}:{port}", "bin", HOST, port)
            for number, port in where.items()
        ]
        load(self.settings, rows, ClusterKey(sender, "bin"))

    def process(self, *words: str, **changes: object) -> Process:
        """Start ``python -m WORDS...`` with the settings, some changed."""
        settings = replace(self.settings, **changes)  # type: ignore[arg-type]  # its own fields
        return self._keep(Process(self._directory, as_environment(settings), *words))

    def program(self, *command: str) -> Process:
        """Start another program than Python."""
        return self._keep(Program(self._directory, {}, *command))

    def worker(self) -> Process:
        """Start a delivery worker."""
        port = free_port() if self._metrics else 0
        return self.process("workers", "delivery", metrics_port=port)

    def child(self, role: Callable[P, R], *arguments: P.args, **options: P.kwargs) -> Child[R]:
        """Start a process with a role."""
        env = as_environment(self.settings)
        return self._keep(Child(self._directory, env, role, *arguments, **options))

    def senders(self, *machine_ids: int, shared_cluster: int = 0) -> Child[Senders]:
        """Start a process with an instance per machine_id."""
        return self.child(Senders, list(machine_ids), shared_cluster)

    def one_sender(self, nodes: int = NODES) -> tuple[Process, Child[Senders]]:
        """Make the cluster of `SENDER`; start a delivery worker, and the sender."""
        self.provision(SENDER, nodes)
        return self.worker(), self.senders(SENDER)

    def require_alive(self) -> None:
        """Raise `BenchmarkFailed` for a process that has ended."""
        for process in self._processes:
            if process.popen.poll() is not None:
                raise process.failed("ended too early")

    @contextmanager
    def arrival_of(
        self,
        packets: int,
        what: str,
        timeout_s: float = ARRIVE_WITHIN_S,
        at: Child[Receivers] | None = None,
    ) -> Iterator[None]:
        """Wait, at the end of the block, until so many more packets have arrived at the nodes.

        ``at``: other receivers than the usual ones.
        """
        receivers = at or self._receivers
        expected = receivers.call(Receivers.received) + packets
        yield
        missing = 0

        def arrived() -> bool:
            nonlocal missing
            self.require_alive()
            missing = expected - receivers.call(Receivers.received)
            return missing <= 0

        try:
            wait_until(arrived, timeout_s)
        except TimeoutError as error:
            late = f"{missing} packets are missing after {timeout_s:g} s"
            raise BenchmarkFailed(f"{what}: {late}") from error

    def last_arrival_ns(self, at: Child[Receivers] | None = None) -> int:
        """Return when the last byte arrived at any node (monotonic ns)."""
        return (at or self._receivers).call(Receivers.last_ns)

    def record(self) -> None:
        """Record the packets that are sent from now on; all earlier ones must have arrived."""
        self._receivers.call(Receivers.record, on=True)

    def arrivals(self) -> list[Arrival]:
        """Return the first arrival of each recorded packet at each node."""
        return [Arrival(*one) for one in self._receivers.call(Receivers.arrivals)]

    def duplicates(self) -> int:
        """Return how many packets arrived again since `record`."""
        return self._receivers.call(Receivers.duplicates)

    def wait_for_quiet(self, senders: Sequence[int]) -> None:
        """Wait until no worker delivers for ``senders`` and no job runs."""
        leases = [f"clusterer:lease:{sender}" for sender in senders]
        running = f"rq:wip:{self.settings.delivery_queue}"
        wait_until(lambda: not self.client.exists(*leases, running), message="delivery is quiet")

    def _keep(self, process: Started) -> Started:
        self._processes.append(process)
        return process
