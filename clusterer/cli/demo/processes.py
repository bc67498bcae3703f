"""The processes of the demo: their settings, addresses and command lines."""

from __future__ import annotations

import random
import signal
import socket
from dataclasses import dataclass, replace
from pathlib import Path

from clusterer.cli.demo.instance import CLUSTER
from clusterer.errors import ClustererError
from clusterer.processes import ChildSpec, child_environment, python_command
from clusterer.provisioning.table import NewRow
from clusterer.settings import Settings

FAILED_ATTEMPTS = 3
DURATION_S = 5
# Below what the kernel gives to outgoing connections: B's port stays free while B is dead.
_PORTS = range(15_000, 32_000)


@dataclass(frozen=True, slots=True)
class DemoNode:
    """One of the two nodes."""

    name: str
    machine_id: int
    host: str
    port: int
    check_ticks: int
    """Ticks from one ratelimit check to the next."""

    @property
    def url(self) -> str:
        return f"bin:{self.host}:{self.port}"

    @property
    def row(self) -> NewRow:
        """The row of the node in the provisioning table."""
        return NewRow(
            CLUSTER,
            self.machine_id,
            self.url,
            failed_attempts=FAILED_ATTEMPTS,
            duration=DURATION_S,
            description=f"Node {self.name}",
        )


def make_nodes() -> tuple[DemoNode, DemoNode]:
    """Return A and B on free ports, on different IP addresses if the system allows it."""
    second = "127.0.0.2" if _is_free("127.0.0.2", 0) else "127.0.0.1"
    ports = random.sample(_PORTS, 1000)
    a = DemoNode("A", 1, "127.0.0.1", _free_port("127.0.0.1", ports[::2]), check_ticks=1)
    return a, DemoNode("B", 2, second, _free_port(second, ports[1::2]), check_ticks=3)


def make_settings(directory: Path) -> Settings:
    """Return settings that use only ``directory``, also if others are configured."""
    return Settings(data_dir=str(directory), replicate_pipes_to=CLUSTER, accept_pipes_from=CLUSTER)


def instance_spec(node: DemoNode, settings: Settings) -> ChildSpec:
    """Return the process that runs the instance of ``node``."""
    own = replace(settings, server_id=node.machine_id)
    return _spec(node.name, own, "clusterer.cli.demo.instance", str(node.check_ticks))


def helper_specs(settings: Settings) -> list[ChildSpec]:
    """Return the processes around the instances."""
    return [
        _spec("delivery worker", settings, "workers", "delivery"),
        _spec("maintenance worker", settings, "workers", "maintenance"),
        _spec("scheduler", settings, "scheduler"),
    ]


def _spec(name: str, settings: Settings, module: str, *arguments: str) -> ChildSpec:
    command = python_command(module, *arguments)
    return ChildSpec(name, command, child_environment(settings), death_signal=signal.SIGKILL)


def _free_port(host: str, ports: list[int]) -> int:
    for port in ports:
        if _is_free(host, port):
            return port
    raise ClustererError(f"demo: no free port on {host}")


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
