"""Some of many simulated hosts, in a process of their own: senders, probers and local copies.

Run as ``python -m tests.support.many_hosts FIRST LAST VICTIM``; settings come from the environment.
Each host has the machine_id of its one node, and an address of loopback. When the list
``test:fail:FIRST`` gets an entry, an attempt of each of these hosts to reach the victim has failed.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from functools import partial
from operator import eq
from typing import Any

from clusterer.membership import Condition, Event, Node, suspicions
from clusterer.membership.suspicions import Kind
from clusterer.prober import Prober
from clusterer.settings import Settings
from clusterer.settings.sources import load_settings
from clusterer.store import Cause, Directory, NodeStore, connect
from clusterer.store.paths import Observation, PathStore, Reply
from clusterer.store.suspicions import Opened, SuspicionStore
from tests.support.cluster import CLUSTER
from tests.support.processes import EVENTUALLY_S, wait_until


def address_of(machine_id: int) -> str:
    """Return the address of a simulated host."""
    return f"127.3.{machine_id // 250}.{machine_id % 250 + 1}"


def trigger_of(first: int) -> str:
    """Return the list whose entry lets the attempts of these hosts fail."""
    return f"test:fail:{first}"


class Host:
    """A sender, its host's prober, and the local copy of an instance."""

    def __init__(self, settings: Settings, machine_id: int, stack: ExitStack) -> None:
        client = connect(settings)
        stack.callback(client.close)
        self.machine_id = machine_id
        self._paths = PathStore(settings, client)
        self._suspicions = SuspicionStore(settings, client)
        self._nodes = NodeStore(settings, client)
        self.directory = Directory(NodeStore(settings, client))
        stack.callback(self.directory.close)
        self.directory.views()
        prober = Prober(settings, partial(eq, address_of(machine_id)))
        stack.callback(prober.close)
        prober.start()

    def node(self, machine_id: int) -> Node:
        """Return a node as the local copy has it."""
        return self.directory.views()[CLUSTER].nodes[machine_id]

    def fail(self, victim: Node, began_ms: int) -> None:
        """Do what a delivery worker does when an attempt to reach a node has failed."""
        by = f"delivery of sender {self.machine_id}"
        seen = Observation(victim, None, Event.SEND_FAILED, "did not answer", began_ms, by)
        ((reply, _path),) = self._paths.observe(self.machine_id, [seen])
        if reply is not Reply.ASK:
            return
        opened = self._suspicions.open(
            victim,
            Kind.SUSPECT,
            asking=self.machine_id,
            reason=seen.reason,
            views=self.directory.snapshot,
            observation=(self.machine_id, seen),
        )
        if opened is Opened.ALONE:
            self._nodes.observe(victim, Event.SEND_FAILED, Cause(by, seen.reason))


def main() -> None:
    """Be the hosts until SIGTERM."""
    first, last, victim = map(int, sys.argv[1:])
    suspicions._host = lambda node: node.host  # each address of loopback is a host here
    settings = load_settings()
    with ExitStack() as stack:
        hosts = [Host(settings, i, stack) for i in range(first, last + 1)]
        client: Any = stack.enter_context(connect(settings))
        wait_until(lambda: client.lpop(trigger_of(first)), 120, "attempts fail")
        began_ms = PathStore(settings, client).now_ms()
        for host in hosts:
            host.fail(host.node(victim), began_ms)
        wait_until(
            lambda: all(host.node(victim).condition is not Condition.UP for host in hosts),
            EVENTUALLY_S,
            "all copies know",
        )
        print("all copies know", flush=True)
        wait_until(lambda: False, 120, "the test ends")


if __name__ == "__main__":
    main()
