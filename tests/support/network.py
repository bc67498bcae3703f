"""Hosts in network namespaces of their own, on one bridge, and links between them that break.

All namespaces belong to one user namespace, so that no root is needed, and end with the processes
that hold them, which end with the test run: nothing is left behind, and no name is taken.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import pytest

from tests.support.processes import EVENTUALLY_S, child_environment, end_group, start, wait_until
from tests.support.programs import missing, require_program

SUBNET = "10.77.0"
HUB = f"{SUBNET}.254"
"""Address of the bridge, where Redis listens: no broken link is on the way to it."""

_READY = "ready for hosts"
_PATH = "PATH=$PATH:/usr/sbin:/sbin; "
_HOLD = f"ip link set lo up && echo {_READY} && exec sleep infinity"
_LOSS = "-m statistic --mode random --probability"
_LONGER = "-m length --length"
_TRY = (
    f"iptables -A INPUT -s {SUBNET}.9 {_LOSS} 0.5 -j DROP"
    f" && iptables -A INPUT -s {SUBNET}.9 {_LONGER} 1000: -j DROP && iptables -F INPUT"
)
_BRIDGE = f"ip link add br0 type bridge && ip link set br0 up && ip addr add {HUB}/24 dev br0"

_FORBIDDEN = (
    "unshare failed",
    "Operation not permitted",
    "Permission denied",
    "not supported",
    "Couldn't load match",
    "missing kernel module",
)
"""What the programs say where the kernel has no namespaces or filters, or not for this user."""


class Network:
    """A bridge and the hosts on it. A context manager; from the main thread."""

    def __init__(self) -> None:
        for program in ("unshare", "nsenter", "ip", "iptables"):
            require_program(program)
        self._directory = Path(tempfile.mkdtemp(prefix="clusterer-network-"))
        self._holders: dict[str, subprocess.Popen[bytes]] = {}
        self.addresses: dict[str, str] = {}

    def __enter__(self) -> Self:
        try:
            self._hold("hub", ["unshare", "-rn"], f"{_BRIDGE} && {_TRY} && {_HOLD}")
            self._wait_for("hub")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the namespaces; a process that still runs in one keeps it until it ends."""
        for holder in reversed(self._holders.values()):
            holder.kill()
        for holder in self._holders.values():
            end_group(holder)
        shutil.rmtree(self._directory, ignore_errors=True)

    def add_hosts(self, names: Sequence[str]) -> None:
        """Make hosts and connect them to the bridge; the first has the address SUBNET.1."""
        for name in names:
            self._hold(name, [*self.inside("hub"), "unshare", "-n"], _HOLD)
        for name in names:
            self._wait_for(name)
            number = len(self.addresses) + 1
            self.addresses[name] = f"{SUBNET}.{number}"
            pid, port = self._holders[name].pid, f"p{number}"
            self.shell(
                "hub",
                f"ip link add e0 netns {pid} type veth peer name {port}"
                f" && ip link set {port} master br0 up",
            )
            self.shell(name, f"ip addr add {self.addresses[name]}/24 dev e0 && ip link set e0 up")

    def inside(self, host: str) -> list[str]:
        """Return the words before a command that make it run on the host; "hub": the bridge's."""
        pid = str(self._holders[host].pid)
        return ["nsenter", "-t", pid, "-U", "-n", "--preserve-credentials"]

    def shell(self, host: str, script: str) -> str:
        """Run a shell script on the host and return what it prints; it must succeed."""
        done = subprocess.run(
            [*self.inside(host), "sh", "-c", _PATH + script],
            check=False,
            capture_output=True,
            text=True,
            timeout=EVENTUALLY_S,
            env=child_environment(),
        )
        assert not done.returncode, done.stdout + done.stderr
        return done.stdout

    def drop(self, source: str, target: str, rule: str = "") -> None:
        """Drop what comes from one host to another: all, or what the rule of iptables matches."""
        self.shell(target, f"iptables -A INPUT -s {self.addresses[source]} {rule} -j DROP")

    def cut(self, one: str, other: str) -> None:
        """Drop all between two hosts."""
        self.drop(one, other)
        self.drop(other, one)

    def lose(self, one: str, other: str, share: float) -> None:
        """Lose this share of the packets between two hosts, each way."""
        self.drop(one, other, f"{_LOSS} {share}")
        self.drop(other, one, f"{_LOSS} {share}")

    def narrow(self, one: str, other: str, limit: int) -> None:
        """Drop IP packets of more than ``limit`` bytes between two hosts."""
        self.drop(one, other, f"{_LONGER} {limit + 1}:")
        self.drop(other, one, f"{_LONGER} {limit + 1}:")

    def isolate(self, host: str) -> None:
        """Cut a host off from all others, not from the hub."""
        for other in self.addresses.keys() - {host}:
            self.cut(host, other)

    def heal(self) -> None:
        """Mend all links."""
        for host in self.addresses:
            self.shell(host, "iptables -F INPUT")

    def _hold(self, name: str, words: Sequence[str], script: str) -> None:
        self._holders[name] = start([*words, "sh", "-c", _PATH + script], self._log(name))

    def _log(self, name: str) -> Path:
        return self._directory / f"{name}.log"

    def _wait_for(self, name: str) -> None:
        """Wait until the namespace is there; skips the test where the kernel forbids it."""
        holder = self._holders[name]
        wait_until(
            lambda: _READY in self._log(name).read_text() or holder.poll() is not None,
            message=f"the namespace of {name}",
        )
        said = self._log(name).read_text().strip()
        if holder.poll() is None:
            return
        if any(words in said for words in _FORBIDDEN):
            pytest.skip(f"the kernel gives no namespace with iptables here: {said}")
        missing(f"a working set of unshare, ip and iptables ({said})")
