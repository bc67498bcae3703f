"""A cluster of real processes on hosts in namespaces: what runs where, and what breaks."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Self

import redis

from clusterer.membership import Node
from clusterer.services import Context
from clusterer.settings import Settings, as_environment
from tests.support import talking
from tests.support.cluster import load
from tests.support.hosts_view import HostsView
from tests.support.network import HUB, Network
from tests.support.processes import (
    child_environment,
    end_group,
    start,
    wait_until,
)
from tests.support.redis_server import redis_binary

DURATION_S = 3
FAILED_ATTEMPTS = 2
INTERVAL_S = 0.1
"""Between packets of each instance that sends."""

PERIODIC = ("scheduler", "maintenance")
_COMMANDS = {
    "delivery": ("-m", "workers", "delivery"),
    "maintenance": ("-m", "workers", "maintenance"),
    "scheduler": ("-m", "scheduler"),
}
_TALKING = Path(talking.__file__)


class Hosts(HostsView):
    """Hosts with an instance per machine, and a delivery worker; the first have more.

    A context manager; from the main thread. ``machines``: machine_ids per host. ``periodic``: the
    hosts with a scheduler and a maintenance worker, all without it. ``silent``: machines that send
    nothing. ``size``: bytes of a packet. ``environment`` and ``code`` per host: more variables, and
    the directory of another version's code.
    """

    def __init__(
        self,
        machines: Mapping[str, Sequence[int]],
        *,
        periodic: Collection[str] | None = None,
        silent: Collection[int] = (),
        size: int = 100,
        code: Mapping[str, Path] | None = None,
        duration_s: int = DURATION_S,
        **settings: object,
    ) -> None:
        self.machines = machines
        self.host_of = {m: host for host, owned in machines.items() for m in owned}
        self.silent = frozenset(silent)
        self.duration_s = duration_s
        self._periodic = machines if periodic is None else periodic
        self._size = size
        self.code = dict(code or {})
        """Host → directory of its code; a host that is not in it runs the code of this version."""
        self._changes = {"send_timeout": 1.0, "probe_interval": 0.5, "linger": 60.0} | settings
        self._stack = ExitStack()
        self.network = Network()
        self.processes: dict[tuple[str, str], subprocess.Popen[bytes]] = {}
        """(host, "instance 1" or "delivery" …) → process."""

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.directory = Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="clusterer-hosts-"))
            )
            stack.enter_context(self.network)
            stack.callback(self._end)
            self._begin()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is not None:
            self._show_logs()
        self._stack.close()

    def _begin(self) -> None:
        self.network.add_hosts(list(self.machines))
        self.settings = replace(
            Settings(redis_url=f"unix://{self.directory}/redis.sock?db=0"),
            **self._changes,  # type: ignore[arg-type]
        )
        self.start_redis()
        self.context = Context(self.settings)
        self.client = redis.Redis(unix_socket_path=f"{self.directory}/redis.sock")
        self.rows = {m: self._row(m) for m in self.host_of}
        load(self.settings, self.rows.values())
        for host in self.machines:
            self.start_host(host)

    def _row(self, machine_id: int) -> Node:
        address, port = self.network.addresses[self.host_of[machine_id]], 5500 + machine_id
        url = f"bin:{address}:{port}"
        row = Node(machine_id, 1, machine_id, url, "bin", address, port)
        return replace(row, failed_attempts=FAILED_ATTEMPTS, duration=self.duration_s)

    # processes

    def start_redis(self) -> None:
        """Start Redis, with the data of before; wait until it answers."""
        socket, name = f"{self.directory}/redis.sock", ("hub", "redis")
        options = {
            "bind": HUB,
            "port": "6379",
            "protected-mode": "no",
            "unixsocket": socket,
            "dir": str(self.directory),
            "appendonly": "yes",
            "save": "",
        }
        words = [word for key, value in options.items() for word in (f"--{key}", value)]
        command = [*self.network.inside("hub"), redis_binary(), *words]
        self.processes[name] = start(command, self._log(*name), child_environment())

        def answers() -> bool:
            with suppress(redis.RedisError), redis.Redis(unix_socket_path=socket) as client:
                return bool(client.ping())
            return False

        wait_until(answers, message="Redis answers")

    def start_host(self, host: str) -> None:
        """Start all processes of a host."""
        for machine_id in self.machines[host]:
            self.start(host, f"instance {machine_id}")
        for name in ("delivery", *(PERIODIC if host in self._periodic else ())):
            self.start(host, name)

    def upgrade(self, host: str) -> None:
        """End all processes of a host, and start them with the code of this version."""
        self.code.pop(host, None)
        _end_all([process for (at, _), process in self.processes.items() if at == host])
        self.start_host(host)

    def start(self, host: str, name: str) -> None:
        """Start a process of a host: "delivery", "maintenance", "scheduler", "instance N"."""
        kind, _, number = name.partition(" ")
        interval_s = 0.0 if int(number or 0) in self.silent else INTERVAL_S
        talk = (str(_TALKING), str(interval_s), str(self._size))
        changed = replace(
            self.settings,
            redis_url=f"redis://{HUB}:6379/0",
            data_dir=str(self.directory),
            delivery_queue=f"q-{host}",
            server_id=int(number or self.machines[host][0]),
        )
        code = self.code.get(host, Path.cwd())
        environment = child_environment(as_environment(changed)) | {"PYTHONPATH": str(code)}
        words = talk if kind == "instance" else _COMMANDS[kind]
        command = [*self.network.inside(host), "env", "-C", str(code), sys.executable, "-P", *words]
        self.processes[host, name] = start(command, self._log(host, name), environment)

    def stop(self, host: str, name: str) -> None:
        """SIGTERM a process and wait until it has ended."""
        end_group(self.processes[host, name])

    def signal(self, host: str, name: str, number: signal.Signals) -> None:
        """Send a signal to a process of a host."""
        self.processes[host, name].send_signal(number)

    def kill(self, host: str, name: str) -> None:
        """SIGKILL a process of a host, and reap it."""
        self.processes[host, name].kill()
        self.processes[host, name].wait()

    def output(self, host: str, name: str) -> str:
        """Return what a process of a host has written so far."""
        return self._log(host, name).read_text(encoding="utf-8", errors="replace")

    def _log(self, host: str, name: str) -> Path:
        return self.directory / f"{host}-{name}.log"

    def _end(self) -> None:
        _end_all(list(self.processes.values()))
        if hasattr(self, "client"):
            self.client.close()
            self.context.close()

    def _show_logs(self) -> None:
        for host, name in self.processes:
            lines = self.output(host, name).splitlines()[-60:]
            print(f"--- {name} of host {host}", *lines, sep="\n", file=sys.stderr)


def _end_all(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End processes at once."""
    for process in processes:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
            process.terminate()
    for process in processes:
        end_group(process)
