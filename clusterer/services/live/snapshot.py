"""Everything that a live view shows, as it was at one moment; usually in one round trip."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from clusterer.services import fleet
from clusterer.services.context import Context
from clusterer.services.listing import (
    HASHES,
    Flow,
    Hash,
    SenderHashes,
    Traffic,
    decoded,
    flow_of,
    sends_to,
    with_ages,
)
from clusterer.store import ClusterKey, ClusterView, keys, translated
from clusterer.store.encoding import as_text, decode_node
from clusterer.store.watches import Watch

_ROUNDS = 6
"""Reads until the plan has to fit; three are needed at first, one later."""

_NO_KEY = -2
"""What TTL says of a key that does not exist."""

_LOOKED_UP = 20
"""Backlogs that are looked up in the log itself, several round trips each, per snapshot."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """Whom one instance last heard, when, for one of its registered modules."""

    watch: Watch
    flushed_ms: int
    """Redis ms until which the instance was certainly listening."""
    heard_ms: Mapping[int, int]
    """machine_id → Redis ms; at first when the instance began to listen."""
    silenced_ms: Mapping[int, int]
    """machine_id → Redis ms until which its packets are dropped."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All clusters, their traffic and who heard whom."""

    now: float
    """Redis TIME, UNIX seconds."""
    clusters: tuple[ClusterView, ...] = ()
    traffic: tuple[Traffic, ...] = ()
    receipts: tuple[Receipt, ...] = ()
    stalled: str = ""
    """Why states stand still, empty if they do not."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """Which keys there are, as far as is known."""

    members: Mapping[ClusterKey, tuple[int, ...]] = field(default_factory=dict)
    watches: Mapping[int, tuple[Watch, ...]] = field(default_factory=dict)
    """Per instance."""
    probers: tuple[bytes, ...] = ()
    """RQ's keys of maintenance workers."""

    @property
    def senders(self) -> list[int]:
        return sorted({machine_id for ids in self.members.values() for machine_id in ids})


class Reader:
    """Takes snapshots, and remembers from one to the next which keys to ask for."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._plan = _Plan()

    def read(self) -> Snapshot:
        """Return everything as it is now. Raises `StateUnavailable`."""
        found, flows = Snapshot(0.0), list[Flow]()
        with translated(self._context.settings, "read the clusters"):
            for _ in range(_ROUNDS):
                replies = self._ask(self._plan)
                plan, found, flows = _understood(self._plan, iter(replies))
                if plan == self._plan:
                    break
                self._plan = plan
        traffic = with_ages(self._context, flows, found.now, _LOOKED_UP)
        return replace(found, traffic=tuple(traffic))

    def _ask(self, plan: _Plan) -> list[Any]:
        pipe = self._context.redis.pipeline(transaction=False)
        pipe.time()
        pipe.smembers(keys.CLUSTERS)
        pipe.smembers(keys.INSTANCES)
        pipe.zrange(fleet.SCHEDULE, 0, -1, withscores=True)
        pipe.smembers(fleet.PROBERS)
        for worker in plan.probers:
            pipe.ttl(worker)
        for key, machine_ids in plan.members.items():
            pipe.smembers(keys.nodes(*key))
            for machine_id in machine_ids:
                pipe.hgetall(keys.node(*key, machine_id))
        for sender in plan.senders:
            for name in HASHES:
                pipe.hgetall(name(sender))
        for receiver, watches in plan.watches.items():
            pipe.hgetall(keys.modules(receiver))
            for watch in watches:
                pipe.zrange(watch.heard, 0, -1, withscores=True)
                pipe.zrange(watch.silenced, 0, -1, withscores=True)
        return pipe.execute()


def _understood(plan: _Plan, replies: Iterator[Any]) -> tuple[_Plan, Snapshot, list[Flow]]:
    """Return the plan that would have fitted, what was read with this one, and the traffic."""
    (seconds, micros), clusters, instances = next(replies), next(replies), next(replies)
    now = float(seconds) + float(micros) / 1e6
    schedule, probers = next(replies), tuple(sorted(next(replies)))
    stalled = _stalled([at for _, at in schedule], now, [next(replies) for _ in plan.probers])
    members: dict[ClusterKey, tuple[int, ...]] = dict.fromkeys(
        sorted(ClusterKey.parse(as_text(name)) for name in clusters), ()
    )
    watches: dict[int, tuple[Watch, ...]] = dict.fromkeys(sorted(map(int, instances)), ())
    views = []
    for key, asked in plan.members.items():
        ids = tuple(sorted(map(int, next(replies))))
        nodes = [decode_node(found) for found in (next(replies) for _ in asked) if found]
        if key in members:
            members[key] = ids
            views.append(ClusterView.of(key, 0, nodes))
    hashes = {
        sender: SenderHashes(*(decoded(next(replies)) for _ in HASHES)) for sender in plan.senders
    }
    receipts: list[Receipt] = []
    for receiver, known in plan.watches.items():
        modules = decoded(next(replies))
        found = [Receipt(w, _flushed(modules), *_scores(replies, 2)) for w in known]
        if receiver in watches:
            watches[receiver] = _watches(receiver, modules)
            receipts += found
    snapshot = Snapshot(now, tuple(views), receipts=tuple(receipts), stalled=stalled)
    return _Plan(members, watches, probers), snapshot, _flows(views, hashes)


def _stalled(due: Sequence[float], now: float, key_ttls_s: Sequence[int]) -> str:
    late_s = fleet.last_tick_s(due, now)
    if late_s is None or late_s > fleet.LATE_S:
        return "no scheduler runs"
    lives = (ttl != _NO_KEY and fleet.silent_s(ttl) < fleet.SILENT_S for ttl in key_ttls_s)
    return "" if any(lives) else "no maintenance worker runs"


def _watches(receiver: int, modules: Hash) -> tuple[Watch, ...]:
    found = [Watch.parse(receiver, name, int(ms)) for name, ms in modules.items() if ":" in name]
    clocked = [watch for watch in found if watch.cluster_id]
    return tuple(sorted(clocked, key=lambda watch: (watch.cluster_id, watch.token)))


def _flushed(modules: Hash) -> int:
    return int(modules.get("flushed_at") or 0)


def _scores(replies: Iterator[Any], count: int) -> list[dict[int, int]]:
    return [{int(name): int(ms) for name, ms in next(replies)} for _ in range(count)]


def _flows(views: Sequence[ClusterView], hashes: Mapping[int, SenderHashes]) -> list[Flow]:
    return [
        (flow_of(sender, node, found), node, found)
        for sender, found in hashes.items()
        if found.counters
        for view in views
        for node in view.nodes.values()
        if node.machine_id != sender and sends_to(node, found)
    ]
