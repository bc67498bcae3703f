"""Hosts on loopback: a prober thread and a node for each, and links that a test cuts."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from functools import partial
from operator import eq
from time import monotonic
from typing import Any

import pytest

from clusterer.delivery.link import Link
from clusterer.membership import Condition, Event, Node, suspicions
from clusterer.membership.paths import Path, observed
from clusterer.membership.suspicions import Kind
from clusterer.prober import Prober, checks
from clusterer.prober.checks import Checks
from clusterer.prober.context import Context as ProberContext
from clusterer.prober.verdicts import Verdicts
from clusterer.prober.viewpoint import Viewpoint
from clusterer.services import Context
from clusterer.settings import Settings
from clusterer.store import Directory, keys
from clusterer.store.suspicions import Opened
from tests.support.cluster import CLUSTER, load, node
from tests.support.ports import free_port
from tests.support.processes import wait_until
from tests.support.receiver import BinReceiver


def host_of(machine_id: int) -> str:
    """Return the address of a simulated host."""
    return f"127.0.1.{machine_id}"


class Hosts:
    """Hosts 1 to ``count``, each with one node, which listens."""

    def __init__(self, settings: Settings, stack: ExitStack, count: int, **more: object) -> None:
        self.context = Context(settings)
        self._settings = settings
        self._stack = stack
        self._cut: set[tuple[str, tuple[str, int]]] = set()
        self._hole = stack.enter_context(black_hole())
        self.connects: list[tuple[str | None, tuple[str, int]]] = []
        """From where to where a connect was begun."""
        self.receivers = {
            i: stack.enter_context(BinReceiver(host_of(i), free_port(host_of(i))))
            for i in range(1, count + 1)
        }
        load(
            settings,
            [node(i, each.port, each.host, **more) for i, each in self.receivers.items()],
        )
        self.probers: dict[int, Prober] = {}

    def link(self, address: tuple[str, int], source: str | None, timeout_s: float) -> Link:
        """Make a `Link`, which ends in a black hole if a test has cut the way."""
        self.connects.append((source, address))
        if source is not None and (source, address) in self._cut:
            return Link(self._hole, None, timeout_s)
        return Link(address, source, timeout_s)

    def start(self, *machine_ids: int, settings: Settings | None = None) -> None:
        """Start the probers of hosts, and wait until they are present."""
        for machine_id in machine_ids:
            is_local = partial(eq, host_of(machine_id))
            prober = Prober(settings or self._settings, is_local)
            prober.start()
            self.probers[machine_id] = prober
            self._stack.callback(prober.close)
        wait_until(
            lambda: set(machine_ids) <= set(self.context.probers.present(CLUSTER)),
            message="the probers are present",
        )

    def cut(self, source: int, target: int) -> None:
        """Lose what host ``source`` sends to node ``target``."""
        self._cut.add((host_of(source), self.node(target).address))

    def heal(self) -> None:
        """Mend all links."""
        self._cut.clear()

    def node(self, machine_id: int) -> Node:
        """Return a node as it is in Redis."""
        found, _ = self.context.nodes.read(CLUSTER, machine_id)
        assert found is not None
        return found

    def condition(self, machine_id: int) -> Condition:
        """Return the verdict of a node."""
        return self.node(machine_id).condition

    def path(self, sender: int, machine_id: int) -> Path | None:
        """Return the record of a path."""
        return self.context.paths.records(sender).get(self.node(machine_id).destination)

    def record(self, sender: int, machine_id: int, *, tries: int = 1) -> Path:
        """Write the record that ``tries`` failed attempts of a sender leave."""
        found = self.node(machine_id)
        path = None
        for _ in range(tries):
            path = observed(found, path, Event.SEND_FAILED, self.context.paths.now_ms(), "test")
        assert path is not None
        name = f"clusterer:paths:{sender}"
        self.context.redis.hset(name, found.destination, str(path))
        self.context.redis.hincrby("clusterer:paths", str(sender), 1)
        return path


@contextlib.contextmanager
def hosts_on_loopback(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, count: int, **more: object
) -> Iterator[Hosts]:
    """Make `Hosts`; ``more`` are fields of all nodes."""
    # Each address of loopback is a host here.
    monkeypatch.setattr(suspicions, "_host", lambda found: found.host)
    with ExitStack() as stack:
        hosts = Hosts(settings, stack, count, **more)
        stack.callback(hosts.context.close)
        monkeypatch.setattr(checks, "Link", hosts.link)
        yield hosts


@contextlib.contextmanager
def black_hole() -> Iterator[tuple[str, int]]:
    """Yield an address that never answers: its queue of connections is full."""
    with socket.socket() as full, ExitStack() as fillers:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        for _ in range(4):
            filler = fillers.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(address)
        yield address


def suspect(hosts: Hosts, machine_id: int, asking: int, kind: Kind = Kind.SUSPECT) -> Opened:
    """Open a suspicion of a node, as the host of the sender ``asking`` does."""
    views = {CLUSTER: hosts.context.nodes.view(CLUSTER)}
    return hosts.context.suspicions.open(
        hosts.node(machine_id), kind, asking=asking, reason="test", views=views
    )


def keep_window_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no suspicion end because its time is over, however late the answers of hosts are."""
    monkeypatch.setattr(suspicions, "WINDOW_MS", 3_600_000)


def no_suspicion(hosts: Hosts) -> bool:
    """Tell whether no node of the cluster is suspected."""
    return not any(hosts.context.suspicions.all([CLUSTER]).values())


def confirmed_by(hosts: Hosts, machine_id: int) -> int:
    """Return the number of the host whose prober reached the node last; 0 if none did."""
    value = hosts.context.redis.hget(f"clusterer:{CLUSTER}:confirmed", str(machine_id))
    return int((value or b"0 0").split()[1])


def context_of(hosts: Hosts, settings: Settings, own: Collection[str]) -> ProberContext:
    """Return what the prober of a host with these addresses knows, without its thread."""
    shared = hosts.context
    now_ms = shared.paths.now_ms()
    context = ProberContext(
        settings=settings,
        nodes=shared.nodes,
        directory=Directory(shared.nodes),
        paths=shared.paths,
        suspicions=shared.suspicions,
        probers=shared.probers,
        verdicts=Verdicts(shared.nodes, shared.suspicions),
        viewpoint=Viewpoint(lambda address: address in own),
        checks=Checks(),
    )
    context.clock.tell(now_ms, monotonic())
    context.refresh()
    return context


def audit(hosts: Hosts, count: int) -> list[dict[bytes, bytes]]:
    """Return the latest events of the cluster that changed a node."""
    found: Any = hosts.context.redis.xrevrange(keys.events(CLUSTER.cluster_id), count=count)
    known = [fields for _, fields in found if fields[b"before"] != b"absent"]
    return [fields for fields in known if fields[b"before"] != fields[b"after"]]
