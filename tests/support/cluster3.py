"""A cluster of two OpenSIPS 3.x nodes, in whose tables and in whose Redis an instance has a row."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from clusterer import Clusterer
from clusterer.membership import Node
from clusterer.settings import Settings
from clusterer.store import ClusterKey
from clusterer.store.links import LinkRecord, LinkStore
from tests.support.cluster import load
from tests.support.opensips3 import UP, OpenSips3
from tests.support.ports import free_port
from tests.support.processes import EVENTUALLY_S, wait_until
from tests.support.seeding import make_node

KEY = ClusterKey(7, "bin")
INSTANCE, OTHERS = 23, (21, 22)
CAPABILITIES = {"dialog-dlg-repl": 1, "ratelimit-pipe-repl": 0}


@dataclass
class Cluster3:
    """Nodes 21 and 22, which run, and the row of instance 23."""

    settings: Settings
    rows: dict[int, Node]
    nodes: dict[int, OpenSips3]

    def load(self, **changes: object) -> None:
        """Load the rows; ``changes`` are other values of fields, as ``n22={"port": 9}``."""
        for name, fields in changes.items():
            machine_id, port = int(name[1:]), self.rows[int(name[1:])].port
            assert isinstance(fields, dict)
            row = make_node(machine_id, cluster_id=7, **{"port": port} | fields)
            self.rows[machine_id] = row
        load(self.settings, self.rows.values(), KEY)

    def links(self) -> dict[int, LinkRecord]:
        """Return what Redis has of the instance's links."""
        store = LinkStore(self.settings)
        found = store.links().get(INSTANCE, {})
        store.close()
        return {machine_id: link for (_, machine_id), link in found.items()}

    def states(self) -> dict[int, str]:
        """Return the states of these links."""
        return {machine_id: link.state for machine_id, link in self.links().items()}

    def all_up(self) -> bool:
        """Whether both nodes hold the instance to be up, and the other way round."""
        return self.up_at_nodes() and self.states() == dict.fromkeys(OTHERS, "up")

    def up_at_nodes(self) -> bool:
        """Whether both nodes hold the instance to be up."""
        return all(node.link(INSTANCE) == UP for node in self.nodes.values())

    def wait_until_up(self, timeout_s: float = EVENTUALLY_S) -> None:
        wait_until(self.all_up, timeout_s, "the instance is up at both nodes")

    @contextmanager
    def instance(self) -> Iterator[Clusterer]:
        """Run the instance in a thread, from the moment it listens."""
        with Clusterer(INSTANCE, settings=self.settings) as instance:
            thread = threading.Thread(target=instance.serve, name="serve 23")
            thread.start()
            try:
                assert instance.listener.ready.wait(EVENTUALLY_S)
                yield instance
            finally:
                instance.stop()
                thread.join(EVENTUALLY_S)
                assert not thread.is_alive()


@contextmanager
def cluster3(settings: Settings) -> Iterator[Cluster3]:
    """Run nodes 21 and 22, and load all rows. ``settings`` name cluster 7 as a 3.x cluster."""
    port = free_port()
    addresses = {i: (f"127.0.0.{i}", port) for i in (*OTHERS, INSTANCE)}
    with ExitStack() as stack:
        nodes = {
            machine_id: stack.enter_context(
                OpenSips3(
                    machine_id,
                    addresses[machine_id],
                    {i: place for i, place in addresses.items() if i != machine_id},
                    cluster_id=KEY.cluster_id,
                    capabilities=CAPABILITIES,
                )
            )
            for machine_id in OTHERS
        }
        rows = {i: make_node(i, cluster_id=7, port=port) for i in addresses}
        made = Cluster3(settings, rows, nodes)
        made.load()
        yield made
        assert not [node.broken for node in nodes.values() if node.broken]
        assert not [node.refused for node in nodes.values() if node.refused]
