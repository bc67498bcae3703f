"""Five nodes on hosts of their own, and what is kept in Redis of the paths to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import redis

from clusterer.membership import Event, Node
from clusterer.membership.paths import Path
from clusterer.membership.suspicions import Kind, Suspicion
from clusterer.membership.views import ClusterKey, ClusterView
from clusterer.settings import Settings
from clusterer.store import Cause, NodeStore, keys
from clusterer.store.paths import Observation, PathStore, Reply
from clusterer.store.probers import ProberStore
from clusterer.store.suspicions import Opened, SuspicionStore
from tests.support.cluster import CLUSTER, load, node

HOSTS = range(1, 6)
WHY = "Connection refused"
EXHAUSTED = "18446744073709551615-18446744073709551615"
"""Id after which a stream takes no entry."""


@dataclass
class Paths:
    """The stores, and what a worker does with them."""

    settings: Settings
    client: redis.Redis

    def __post_init__(self) -> None:
        self.nodes = NodeStore(self.settings, self.client)
        self.paths = PathStore(self.settings, self.client)
        self.suspicions = SuspicionStore(self.settings, self.client)
        self.probers = ProberStore(self.settings, self.client)

    def load(self, *, host: int = 2, **changes: Any) -> None:
        """Have five nodes, of which ``changes`` are fields of node 2."""
        nodes = {i: node(i, host=f"10.0.0.{i}") for i in HOSTS}
        nodes[2] = node(2, host=f"10.0.0.{host}", **changes)
        load(self.settings, nodes.values())

    def arrive(self, *probers: int) -> None:
        """Have probers that are present."""
        for prober in probers:
            assert self.probers.heartbeat(prober, f"sip{prober}", [CLUSTER])

    def node(self, machine_id: int = 2) -> Node:
        """Return a node as it is."""
        found, _ = self.nodes.read(CLUSTER, machine_id)
        assert found is not None
        return found

    def views(self) -> dict[ClusterKey, ClusterView]:
        """Return all clusters."""
        return self.nodes.views()

    def record(self, sender: int = 1, machine_id: int = 2) -> Path | None:
        """Return the record of a path."""
        return self.paths.records(sender).get(self.node(machine_id).destination)

    def seen(
        self,
        sender: int = 1,
        event: Event = Event.SEND_FAILED,
        *,
        began_ms: int | None = None,
        machine_id: int = 2,
    ) -> Observation:
        """Return what an attempt shows that begins now."""
        began = self.paths.now_ms() if began_ms is None else began_ms
        before = self.record(sender, machine_id)
        return Observation(self.node(machine_id), before, event, WHY, began, "test")

    def fail(self, sender: int = 1, *, began_ms: int | None = None) -> Reply:
        """Have an attempt to reach node 2 fail."""
        ((reply, _),) = self.paths.observe(sender, [self.seen(sender, began_ms=began_ms)])
        return reply

    def open(
        self, kind: Kind = Kind.SUSPECT, *, asking: int | None = 1, node: Node | None = None
    ) -> Opened:
        """Open a suspicion of node 2."""
        return self.suspicions.open(
            node or self.node(), kind, asking=asking, reason=WHY, views=self.views()
        )

    def suspicion(self) -> Suspicion | None:
        """Return the suspicion of node 2."""
        return self.suspicions.all([CLUSTER])[CLUSTER].get(2)

    def put(self, suspicion: Suspicion | str) -> None:
        """Write a suspicion of node 2."""
        self.client.hset(keys.suspicions(*CLUSTER), "2", str(suspicion))

    def confirm(self, at_ms: int) -> None:
        """Write that prober 3 reached node 2."""
        self.client.hset(keys.confirmed(*CLUSTER), "2", f"{at_ms} 3")

    def commit(self, event: Event, suspicion: Suspicion | None = None) -> Node | None:
        """Change node 2 as a worker does that has observed it."""
        return self.nodes.observe(self.node(), event, Cause("test"), suspicion)

    def disable(self) -> None:
        """Have the verdict fall until node 2 is disabled."""
        for _ in range(3):
            self.commit(Event.SUSPECTED)

    def events(self) -> list[tuple[str, str, str, str]]:
        """Return sender, state before and after, and reason of the path events."""
        found: Any = self.client.xrange(keys.path_events(1))
        return [
            (
                fields[b"sender"].decode(),
                fields[b"before"].decode(),
                fields[b"after"].decode(),
                fields[b"reason"].decode(),
            )
            for _, fields in found
        ]
