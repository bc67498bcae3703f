"""What is measured: a Redis, receivers, nodes in Redis, and for each measurement its processes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from clusterer.membership import Node
from clusterer.settings import Settings, as_environment
from clusterer.store import ClusterKey
from scripts.benchmarks.children import BenchmarkFailed, Child, Process, cpu_s
from scripts.benchmarks.frames import SIZE
from scripts.benchmarks.shared import MAX_NODES, Shared
from tests.support.cluster import load
from tests.support.ports import free_port
from tests.support.processes import wait_until
from tests.support.redis_server import RedisServer

HOST = "127.0.0.1"
FIRST_RECEIVER = 100_000
"""machine_id of the first receiver; senders have smaller ones."""
ARRIVE_WITHIN_S = 60.0


class System:
    """A private Redis with an append-only file, and a process that plays up to 64 nodes."""

    def __init__(self, stack: ExitStack, *, metrics: bool = False) -> None:
        self.metrics = metrics
        """Whether delivery workers count for Prometheus."""
        self.directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        self.redis = stack.enter_context(RedisServer())
        self.client = stack.enter_context(self.redis.client(timeout_s=60))
        # A rewrite in the middle of a round would be charged to whoever is being measured.
        self.client.config_set("auto-aof-rewrite-percentage", 0)
        path = self.directory / "shared"
        self.shared = Shared(path)
        given = {"shared": str(path), "nodes": MAX_NODES}
        self._receivers = Child(self.directory, "receivers", given)
        stack.callback(self._receivers.end)
        self.ports: list[int] = self._receivers.answer()

    @contextmanager
    def scene(self, **settings: object) -> Iterator[Scene]:
        """An empty Redis and no processes; what is started in it ends with it."""
        self.client.flushall()
        self.shared.timed = False
        self.shared.clear()
        with ExitStack() as stack:
            stack.callback(setattr, self.shared, "timed", False)
            yield Scene(self, stack, settings)


class Scene:
    """The processes of one measurement, and their settings."""

    def __init__(self, system: System, stack: ExitStack, settings: dict[str, object]) -> None:
        self.system = system
        self.shared = system.shared
        self.client = system.client
        self._stack = stack
        self._processes: list[Process] = []
        self.settings = Settings(
            redis_url=system.redis.url,
            data_dir=str(system.directory),
            **settings,  # type: ignore[arg-type]  # names and types of Settings' fields
        )

    def provision(
        self, sender: int, nodes: int, *, ports: Sequence[int] = (), own_port: int = 1
    ) -> None:
        """Make cluster ``sender``: the sender itself and ``nodes`` receivers.

        ``ports`` are further nodes that others play, ``own_port`` the sender's.
        """
        where = {sender: own_port}
        where |= dict(enumerate([*self.system.ports[:nodes], *ports], FIRST_RECEIVER))
        rows = [
            Node(number, sender, number, f"bin:{HOST}:{port}", "bin", HOST, port)
            for number, port in where.items()
        ]
        load(self.settings, rows, ClusterKey(sender, "bin"))

    def process(self, module: str, *arguments: str, **changes: object) -> Process:
        """Start ``python -m MODULE ARGS...`` with the scene's settings, some changed."""
        env = as_environment(self.settings) | {
            f"CLUSTERER_{name.upper()}": str(value) for name, value in changes.items()
        }
        started = Process(self.system.directory, module, *arguments, env=env)
        self._keep(started)
        return started

    def worker(self) -> Process:
        """Start a delivery worker."""
        port = free_port() if self.system.metrics else 0
        return self.process("workers", "delivery", metrics_port=port)

    def child(self, role: str, **given: object) -> Child:
        """Start one of our own processes; `Child.answer` waits until it is ready."""
        started = Child(self.system.directory, role, given, as_environment(self.settings))
        self._keep(started)
        return started

    def senders(self, *machine_ids: int) -> Child:
        """Start a process with an instance per machine_id and wait until it is ready."""
        started = self.child("ours", machine_ids=list(machine_ids))
        started.answer()
        return started

    def require_alive(self) -> None:
        """Raise `BenchmarkFailed` for a process that has ended."""
        for process in self._processes:
            if process.popen.poll() is not None:
                raise process.failed("ended too early")

    def redis_cpu_s(self) -> float:
        """Return the CPU time of Redis."""
        return cpu_s(self.system.redis.pid)

    def received(self) -> int:
        """Return how many packets have arrived at all nodes together, ever."""
        return sum(self.shared.received()) // SIZE

    def wait_for(self, packets: int, what: str, timeout_s: float = ARRIVE_WITHIN_S) -> None:
        """Wait until `received` has come to ``packets``."""

        def arrived() -> bool:
            self.require_alive()
            return self.received() >= packets

        try:
            wait_until(arrived, timeout_s)
        except TimeoutError as error:
            raise BenchmarkFailed(
                f"{what}: {packets - self.received()} packets are missing after {timeout_s:g} s"
            ) from error

    def wait_for_quiet(self, senders: Sequence[int], timeout_s: float = 10.0) -> None:
        """Wait until nobody delivers for ``senders`` and no job runs."""
        leases = [f"clusterer:lease:{sender}" for sender in senders]
        running = f"rq:wip:{self.settings.delivery_queue}"
        wait_until(
            lambda: not self.client.exists(*leases, running), timeout_s, "delivery falls silent"
        )

    def _keep(self, process: Process) -> None:
        self._processes.append(process)
        self._stack.callback(process.end)
