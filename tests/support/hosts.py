"""A cluster of real processes on hosts in namespaces: what breaks, what is sent, skipped, said."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import redis

from clusterer.membership import Condition, Node
from clusterer.membership.paths import Path as Record
from clusterer.membership.paths import gate
from clusterer.services import Context
from clusterer.services.status import listing
from clusterer.settings import Settings, as_environment
from clusterer.store.destinations import field_of
from tests.support import talking
from tests.support.cluster import CLUSTER, load
from tests.support.network import HUB, Network
from tests.support.processes import (
    EVENTUALLY_S,
    child_environment,
    end_group,
    rounds,
    start,
    wait_until,
)
from tests.support.redis_server import redis_binary

DURATION_S = 3
FAILED_ATTEMPTS = 2
INTERVAL_S = 0.1
"""Between packets of each instance that sends."""

Pair = tuple[int, int]
"""Sender and node, by machine_id."""

PERIODIC = ("scheduler", "maintenance")
_COMMANDS = {
    "delivery": ("-m", "workers", "delivery"),
    "maintenance": ("-m", "workers", "maintenance"),
    "scheduler": ("-m", "scheduler"),
}
_TALKING = Path(talking.__file__)


@dataclass(frozen=True, slots=True)
class Counts:
    """Packets of one sender to one node."""

    sent: int = 0
    skipped: int = 0
    lost: int = 0

    def __sub__(self, other: Counts) -> Counts:
        return Counts(self.sent - other.sent, self.skipped - other.skipped, self.lost - other.lost)


@dataclass(frozen=True, slots=True)
class Change:
    """A change of a node's verdict, or of a path, as the event streams have it."""

    at_ms: int
    sender: int
    """0 for a verdict."""
    machine_id: int
    before: str
    after: str
    reason: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment from which on `Hosts` tells what happened."""

    traffic: Mapping[Pair, Counts]
    at_ms: int


class Hosts:
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
        self.client: Any = redis.Redis(unix_socket_path=f"{self.directory}/redis.sock")
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

    # what is

    @property
    def pairs(self) -> set[Pair]:
        """All pairs whose sender sends."""
        senders = self.host_of.keys() - self.silent
        return {(s, m) for s in senders for m in self.host_of if s != m}

    def between(self, hosts: Iterable[tuple[str, str]]) -> set[Pair]:
        """Return the pairs whose sender and node are on such two hosts, either way."""
        ends = {frozenset(two) for two in hosts}
        return {(s, m) for s, m in self.pairs if {self.host_of[s], self.host_of[m]} in ends}

    def now_ms(self) -> int:
        """Return Redis's time."""
        seconds, micros = self.client.time()
        return int(seconds) * 1000 + int(micros) // 1000

    def traffic(self) -> dict[Pair, Counts]:
        """Return the counts of all pairs."""
        found = listing.run(self.context).traffic
        return {(t.sender, t.machine_id): Counts(t.sent, t.skipped, t.lost) for t in found}

    def verdicts(self) -> dict[int, Condition]:
        """Return the condition of each node."""
        nodes = self.context.nodes.views()[CLUSTER].nodes
        return {machine_id: node.condition for machine_id, node in nodes.items()}

    def mark(self) -> Mark:
        """Return the present moment."""
        return Mark(self.traffic(), self.now_ms())

    def since(self, mark: Mark) -> dict[Pair, Counts]:
        """Return what was counted since then."""
        return {
            pair: now - mark.traffic.get(pair, Counts()) for pair, now in self.traffic().items()
        }

    def verdict_changes(self, mark: Mark) -> list[Change]:
        """Return all changes of verdicts since then."""
        return self._read("clusterer:1:events", mark)

    def path_changes(self, mark: Mark) -> list[Change]:
        """Return all changes of paths since then."""
        return self._read("clusterer:1:pathevents", mark)

    def _read(self, key: str, mark: Mark) -> list[Change]:
        found = []
        for entry_id, fields in self.client.xrange(key, min=mark.at_ms):
            text = {name.decode(): value.decode() for name, value in fields.items()}
            found.append(
                Change(
                    int(entry_id.partition(b"-")[0]),
                    int(text.get("sender", 0)),
                    int(text["machine_id"]),
                    text.get("before", ""),
                    text.get("after", ""),
                    text.get("reason", ""),
                )
            )
        return [change for change in found if change.before != change.after]

    def closed(self) -> dict[Pair, str]:
        """Return why each path is closed that is; also of senders that send nothing."""
        nodes = self.context.nodes.views()[CLUSTER].nodes
        now_ms, found = self.now_ms(), {}
        for sender in self.host_of:
            records = self.client.hgetall(f"clusterer:paths:{sender}")
            for node in nodes.values():
                text = records.get(field_of(node).encode())
                record = Record.parse(text.decode()) if text else None
                if not gate(node, record, now_ms):
                    found[sender, node.machine_id] = str(record)
        return found

    def troubles(self) -> str:
        """Return all that is not as it is in a cluster without a fault; nothing: an empty text."""
        verdicts = {m: c.value for m, c in self.verdicts().items() if c is not Condition.UP}
        suspicions = self.client.hgetall("clusterer:1:bin:suspicions")
        closed = self.closed()
        what = {"verdicts": verdicts, "closed": closed, "suspicions": suspicions}
        return ", ".join(f"{name} {value}" for name, value in what.items() if value)

    def wait_until_healthy(self, timeout_s: float) -> None:
        """Wait until all verdicts are up, and all paths open."""
        said = [""]

        def healthy() -> bool:
            said[0] = self.troubles()
            return not said[0]

        try:
            wait_until(healthy, timeout_s, "all is healthy")
        except TimeoutError as error:
            raise TimeoutError(f"{error}: {said[0]}") from None

    def wait_until_sending(self, timeout_s: float = EVENTUALLY_S) -> None:
        """Wait until each sender has sent to each node for a second without a skipped packet."""
        wait_until(lambda: self.traffic().keys() >= self.pairs, timeout_s, "all senders send")

        def steady() -> bool:
            mark = self.mark()
            for _ in rounds(1.0, 0.1):
                pass
            found = self.since(mark)
            return all(found[p].sent >= 5 and not found[p].skipped for p in self.pairs)

        wait_until(steady, timeout_s, "all senders send without a skipped packet")


def _end_all(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End processes at once."""
    for process in processes:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
            process.terminate()
    for process in processes:
        end_group(process)
