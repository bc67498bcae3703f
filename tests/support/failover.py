"""Two Redis servers behind one name that moves, as a managed Redis does."""

from __future__ import annotations

import contextlib
import socket
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import pytest

from tests.support.ports import free_port
from tests.support.processes import wait_until
from tests.support.redis_server import RedisServer

NAME = "redis-primary.test"
OLD, NEW = "127.0.77.31", "127.0.77.32"

_RESOLVER = """
import os, socket
resolve = socket.getaddrinfo
def getaddrinfo(host, *args, **options):
    if host != "{name}":
        return resolve(host, *args, **options)
    with open("{hosts}") as file:
        addresses = file.read().split()
    return [found for each in addresses for found in resolve(each, *args, **options)]
socket.getaddrinfo = getaddrinfo
"""


class MovingRedis:
    """A primary on `OLD`, its replica on `NEW`, and `NAME`, which points to one or more of them.

    ``environment`` has Python processes resolve the name; `resolve_here` this one.
    """

    def __init__(self) -> None:
        port = free_port()
        self.directory = tempfile.TemporaryDirectory(prefix="clusterer-failover-")
        self.old = RedisServer(address=OLD, port=port)
        self.new = RedisServer(address=NEW, port=port)
        self.url = f"redis://{NAME}:{port}/0"
        self._hosts = Path(self.directory.name, "hosts")
        self.point([OLD])
        script = _RESOLVER.format(name=NAME, hosts=self._hosts)
        Path(self.directory.name, "sitecustomize.py").write_text(script, encoding="utf-8")
        self.environment = {"CLUSTERER_REDIS_URL": self.url, "PYTHONPATH": self.directory.name}

    def __enter__(self) -> Self:
        self.old.start()
        self.new.start()
        with self.old.client() as old, self.new.client() as client:
            old.config_set("repl-diskless-sync-delay", 0)
            client.replicaof(OLD, str(self.old.port))
            wait_until(lambda: client.info("replication")["master_link_status"] == "up")
        return self

    def __exit__(self, *error: object) -> None:
        for server in (self.old, self.new):
            server.kill()  # at SIGTERM a primary would wait for its replica
            server.close()
        self.directory.cleanup()

    def point(self, addresses: Sequence[str]) -> None:
        """Have the name resolve to ``addresses``, in this order, from now on."""
        self._hosts.with_suffix(".new").write_text("\n".join(addresses), encoding="ascii")
        self._hosts.with_suffix(".new").replace(self._hosts)

    def promote(self) -> None:
        """Make the new server the primary, and the old one, if it answers, its replica."""
        with self.new.client() as client:
            client.replicaof("NO", "ONE")

    def demote(self) -> None:
        """Make the old server a replica of the new one; it closes no connection."""
        with self.old.client() as client:
            client.replicaof(NEW, str(self.new.port))

    def move(self) -> None:
        """Promote, move the name, demote: so does a managed Redis that is patched or scaled."""
        self.promote()
        self.point([NEW])
        self.demote()

    def resolve_here(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have this process resolve the name too, until the test ends."""
        real = socket.getaddrinfo

        def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> list[Any]:
            if host != NAME:
                return list(real(host, *arguments, **options))
            addresses = self._hosts.read_text(encoding="ascii").split()
            return [found for each in addresses for found in real(each, *arguments, **options)]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def connected_to(pid: int, port: int) -> set[str]:
    """Return the IPv4 addresses to whose ``port`` the process has established connections."""
    return addresses_of(pid, established(port))


def established(port: int) -> dict[str, str]:
    """Return the established connections to a port of this host: socket → IPv4 address."""
    place = f":{port:04X} 01 "  # other tests have many connections: most rows are not looked at
    found = {}
    for row in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines():
        if place in row:
            _, _, remote, _, *_, inode = row.split()[:10]
            address, _, number = remote.partition(":")
            if int(number, 16) == port:
                found[f"socket:[{inode}]"] = socket.inet_ntoa(bytes.fromhex(address)[::-1])
    return found


def addresses_of(pid: int, connections: Mapping[str, str]) -> set[str]:
    """Return the addresses of those connections (see `established`) that the process has."""
    found = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            found.add(connections.get(str(descriptor.readlink()), ""))
    return found - {""}
