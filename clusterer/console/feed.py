"""The present state of all clusters, read once for all pages and browsers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Generic, TypeVar

from clusterer.console.page import NotFound
from clusterer.ids import PROTO_BIN
from clusterer.jobs.fleet import Fleet
from clusterer.membership import Condition, Node, NodeKey
from clusterer.membership.views import all_nodes
from clusterer.runtime import forks
from clusterer.services import Context
from clusterer.services.doctor import Finding
from clusterer.services.doctor import fleet as fleet_checks
from clusterer.services.live import Alarm, ClusterRows, Reader, Snapshot, alarms, node_pairs, rows
from clusterer.services.live.node_pairs import NodePairs
from clusterer.services.status import failures, fleet, links, redis_server
from clusterer.services.status.failures import Failure
from clusterer.services.status.links import SeenLink
from clusterer.services.status.redis_server import RedisServer
from clusterer.store import ClusterKey
from clusterer.store.history import HistoryStore, Recorded

EVERY_S = 1.0
"""Shortest time between two snapshots."""
PROCESSES_EVERY_S = 3.0
"""Shortest time between two looks at workers, scheduler and the Redis server."""
HISTORY_EVERY_S = 10.0
"""Shortest time between two reads of the samples of a node."""

_OVER = 4
"""Snapshots over which a rate is computed: with fewer, the rate jumps."""
_OLD_S = 15.0
"""Age of a snapshot that is too old for a rate."""
_MOST_HISTORIES = 1_000
"""Nodes whose samples are in memory."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Moment:
    """All clusters at one moment."""

    snapshot: Snapshot
    clusters: tuple[ClusterRows, ...]
    failures: Mapping[NodeKey, Failure]
    """Since when nodes are not up, and why."""
    offered_per_s: Mapping[ClusterKey, float]
    """Packets per second that the senders of each cluster send; empty at first."""

    @property
    def now(self) -> float:
        """Redis TIME, UNIX seconds."""
        return self.snapshot.now

    def alarms(self) -> list[Alarm]:
        """Return the alarms of all nodes, the most severe first."""
        return alarms(self.clusters, self.failures, self.now)

    def cluster(self, key: ClusterKey) -> ClusterRows:
        """Return one cluster; raises `NotFound`."""
        for found in self.clusters:
            if found.key == key:
                return found
        raise NotFound(f"there is no cluster {key}: the page Overview lists the clusters")


@dataclass(frozen=True, slots=True)
class Processes:
    """The processes around the instances, with the findings of the health check about them."""

    fleet: Fleet
    findings: tuple[Finding, ...]
    redis: RedisServer


class Feed:
    """Reads Redis at most once a second, whatever the number of pages. Safe for all threads.

    Every method raises `StateUnavailable`.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._reader = Reader(context)
        self._seen: deque[Snapshot] = deque(maxlen=_OVER)
        self._failures: dict[NodeKey, tuple[int, Failure]] = {}
        """Node → version of the node for which the failure was read, and the failure."""
        self._moment = _Kept(EVERY_S, self._read)
        self._links = _Kept(EVERY_S, lambda: links.run(context))
        self._processes = _Kept(PROCESSES_EVERY_S, self._look)
        self._store = HistoryStore(context.settings, context.redis)
        self._histories: dict[NodeKey, tuple[float, list[Recorded]]] = {}
        """Node → monotonic seconds of the read, and the samples."""
        self._lock = forks.lock()

    def now(self) -> Moment:
        """Return the clusters, at most a second old."""
        return self._moment.get()

    def pairs(self, moment: Moment, node: Node) -> NodePairs:
        """Return the traffic of one node with each other node, and its last-seen times by instance.

        Read at each call; all browsers of a page share its loads.
        """
        return node_pairs.read(self._context, moment.snapshot, node)

    def is_3x(self, key: ClusterKey) -> bool:
        """Whether the setting ``opensips_3_clusters`` names the cluster."""
        return key.protocol == PROTO_BIN and key.cluster_id in self._context.settings.dialect3

    def links(self, key: ClusterKey) -> list[SeenLink]:
        """Return the links of a 3.x cluster, at most a second old; none of another cluster."""
        if not self.is_3x(key):
            return []
        return [each for each in self._links.get() if each.cluster_id == key.cluster_id]

    def processes(self) -> Processes:
        """Return the processes, at most three seconds old."""
        return self._processes.get()

    def histories(
        self, key: ClusterKey, machine_ids: Sequence[int]
    ) -> Mapping[int, list[Recorded]]:
        """Return the samples of nodes by machine_id, oldest first, at most ten seconds old."""
        now = monotonic()
        with self._lock:
            since = now - HISTORY_EVERY_S
            old = [i for i in machine_ids if self._histories.get((key, i), (since,))[0] <= since]
            if len(self._histories) + len(old) > _MOST_HISTORIES:
                self._histories.clear()
                old = list(machine_ids)
            for machine_id, samples in self._store.read(key, old).items():
                self._histories[key, machine_id] = now, samples
            return {i: self._histories[key, i][1] for i in machine_ids}

    def _read(self) -> Moment:
        after = self._reader.read()
        while self._seen and not 0 < after.now - self._seen[0].now < _OLD_S:
            self._seen.popleft()
        self._seen.append(after)
        before = self._seen[0] if len(self._seen) > 1 else None
        return Moment(after, rows(before, after), self._failed(after), _offered(before, after))

    def _failed(self, snapshot: Snapshot) -> Mapping[NodeKey, Failure]:
        """Return the failures; those of nodes that have not changed are not read again."""
        nodes = [
            node for node in all_nodes(snapshot.clusters) if node.condition is not Condition.UP
        ]
        known = self._failures
        new = [node for node in nodes if known.get(node.key, (-1,))[0] != node.version]
        found = failures.read(self._context, new) if new else {}
        self._failures = {
            node.key: (node.version, found[node.key] if node.key in found else known[node.key][1])
            for node in nodes
        }
        return {key: failure for key, (_, failure) in self._failures.items()}

    def _look(self) -> Processes:
        found = fleet.read(self._context)
        findings = tuple(fleet_checks.check(self._context, found))
        return Processes(found, findings, redis_server.read(self._context))


def _offered(before: Snapshot | None, after: Snapshot) -> dict[ClusterKey, float]:
    if before is None:
        return {}
    elapsed_s = after.now - before.now
    return {
        key: (count - before.offered[key]) / elapsed_s
        for key, count in after.offered.items()
        if count >= before.offered.get(key, count + 1)
    }


class _Kept(Generic[T]):
    """A value that is read again when it is too old; one thread reads, the others wait."""

    def __init__(self, every_s: float, read: Callable[[], T]) -> None:
        self._every_s = every_s
        self._read = read
        self._lock = forks.lock()
        self._at = -every_s
        self._value: T | None = None

    def get(self) -> T:
        with self._lock:
            if self._value is None or monotonic() - self._at >= self._every_s:
                self._value = None
                self._value = self._read()
                # After the read: the next read must not follow a slow one at once.
                self._at = monotonic()
            return self._value
