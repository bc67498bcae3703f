"""Reads the data of a live view at one moment, usually in one round trip."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from clusterer.jobs import OURS, SUSPENDED, Suspension
from clusterer.jobs.keys import EVERY_SECOND_IDS
from clusterer.services.context import Context
from clusterer.services.live import receipts
from clusterer.services.live.receipts import Receipt
from clusterer.services.status import fleet, paths, sender_hashes, sums, traffic
from clusterer.services.status.paths import BrokenPath
from clusterer.services.status.sender_hashes import SenderHashes
from clusterer.services.status.sums import Sums
from clusterer.services.status.traffic import Flow, Traffic
from clusterer.store import ClusterKey, ClusterView, keys, translated
from clusterer.store.badvalues import Command, WrongType, ids, number, read_all, text
from clusterer.store.encoding import decode_node
from clusterer.store.nodes import cluster_key
from clusterer.store.paths import records_of
from clusterer.store.receptions import watches_in
from clusterer.store.watches import Watch

_ROUNDS = 6
"""Most reads of one snapshot: the first snapshot needs three, a later one usually one."""

LOOKED_UP = 20
"""Most backlogs per snapshot that come from the logs themselves: several round trips each."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All clusters, their traffic, and the nodes that each instance saw.

    With sums in place of pairs, a module has one receipt with the latest times of all instances,
    and one receipt of each instance that mutes nodes, for these nodes only.
    """

    now: float
    """Redis TIME, UNIX seconds."""
    clusters: tuple[ClusterView, ...] = ()
    traffic: tuple[Traffic, ...] = ()
    receipts: tuple[Receipt, ...] = ()
    paths: tuple[BrokenPath, ...] = ()
    """Paths that are not up."""
    offered: Mapping[ClusterKey, int] = field(default_factory=dict)
    """Packets that all senders ever sent to each cluster."""
    stalled: str = ""
    """Reason why no process updates states; empty if one does."""
    sums: Sums | None = None
    """The traffic by node and by sender, in place of `traffic`, if only sums were read."""
    senders: tuple[int, ...] = ()
    """machine_ids that have sent packets."""
    listening: tuple[Watch, ...] = ()
    """Registrations of the instances that listen now."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """The keys to read: those that the previous read found."""

    members: Mapping[ClusterKey, tuple[int, ...]] = field(default_factory=dict)
    watches: Mapping[int, tuple[Watch, ...]] = field(default_factory=dict)
    """Per instance."""
    probers: tuple[bytes, ...] = ()
    """RQ's keys of maintenance workers."""
    senders: tuple[int, ...] = ()
    """machine_ids that have sent packets."""
    path_senders: tuple[int, ...] = ()
    """machine_ids with records of paths."""
    summed: bool = False
    """Whether nodes, traffic and clocks are read in another way."""

    @property
    def machine_ids(self) -> list[int]:
        return sorted({machine_id for ids in self.members.values() for machine_id in ids})


class Reader:
    """Takes snapshots, and keeps from one to the next the plan of the keys to read."""

    def __init__(self, context: Context, *, pairs: bool = True) -> None:
        """``pairs``: whether the snapshots have each pair of sender and node, and of instance and
        node. Without them the cost grows with the nodes and the senders, and the nodes are read
        only if they change.
        """
        self._context = context
        self._plan = _Plan(summed=not pairs)
        self._senders: Sequence[int] = ()
        """Senders of the last snapshot with sums."""

    def read(self) -> Snapshot:
        """Return a snapshot of this moment. Raises `StateUnavailable`."""
        views: Sequence[ClusterView] = ()
        if self._plan.summed:
            self._context.directory.refresh()
            views = tuple(self._context.directory.snapshot.values())
        found, flows = Snapshot(0.0), list[Flow]()
        with translated(self._context.settings, "read the clusters"):
            for _ in range(_ROUNDS):
                replies = self._ask(self._plan)
                plan, found, flows = _understood(self._plan, iter(replies), views)
                if plan == self._plan:
                    break
                self._plan = plan
            if self._plan.summed:
                return self._summed(found)
        aged = traffic.with_ages(self._context, flows, found.now, LOOKED_UP)
        return replace(found, traffic=tuple(aged))

    def _summed(self, found: Snapshot) -> Snapshot:
        """Return a snapshot with sums of the traffic, and the latest clocks of all instances."""
        context, views, now = self._context, found.clusters, found.now
        machine_ids = {machine_id for view in views for machine_id in view.nodes}
        senders = sender_hashes.senders(context, machine_ids, self._senders)
        self._senders = senders
        counters = sender_hashes.counters(context, senders)
        return replace(
            found,
            receipts=receipts.summed(context.redis, found.listening, int(now * 1000)),
            offered={view.key: sender_hashes.offered(view.key, counters) for view in views},
            sums=sums.read(context, views, found.paths, now, LOOKED_UP, senders=senders),
            senders=tuple(senders),
        )

    def _ask(self, plan: _Plan) -> list[Any]:
        return read_all(self._context.redis, list(_commands(plan)))


def _commands(plan: _Plan) -> Iterator[Command]:
    yield ("time",)
    yield "smembers", keys.CLUSTERS
    yield "smembers", keys.INSTANCES
    yield "zrange", fleet.SCHEDULE, 0, -1, False, True
    yield "smembers", fleet.PROBERS
    yield "pttl", SUSPENDED
    yield "hkeys", keys.PATHS
    for worker in plan.probers:
        yield "hget", worker, OURS
        yield "ttl", worker
    for key, machine_ids in plan.members.items():
        yield "smembers", keys.nodes(*key)
        for machine_id in machine_ids:
            yield "hgetall", keys.node(*key, machine_id)
    for machine_id in plan.machine_ids:
        yield sender_hashes.has_sent(machine_id)
    for sender in plan.senders:
        yield from sender_hashes.commands(sender)
    yield from (("hgetall", keys.paths(sender)) for sender in plan.path_senders)
    for receiver, watches in plan.watches.items():
        yield "hgetall", keys.modules(receiver)
        for watch in () if plan.summed else watches:
            yield from receipts.commands(watch)


def _understood(
    plan: _Plan, replies: Iterator[Any], known: Sequence[ClusterView]
) -> tuple[_Plan, Snapshot, list[Flow]]:
    """Return the plan for the next read, the snapshot that ``plan`` gave, and the traffic.

    ``known``: the clusters that the plan leaves out.
    """
    (seconds, micros), clusters, instances = next(replies), next(replies), next(replies)
    now = float(seconds) + float(micros) / 1e6
    schedule, probers = next(replies), tuple(sorted(next(replies)))
    suspension = Suspension.of(next(replies))
    path_senders = tuple(ids(keys.PATHS, next(replies)))
    workers = [(next(replies), next(replies)) for _ in plan.probers]
    due = [at for name, at in schedule if text(name) in EVERY_SECOND_IDS]
    stalled = _stalled(due, now, suspension, workers)
    members: dict[ClusterKey, tuple[int, ...]] = dict.fromkeys(
        sorted(filter(None, map(cluster_key, clusters))), ()
    )
    if isinstance(clusters, WrongType):  # the clusters of the previous read stay
        members = dict.fromkeys(plan.members, ())
    if plan.summed:
        members = {}
    watches: dict[int, tuple[Watch, ...]] = dict.fromkeys(ids(keys.INSTANCES, instances), ())
    views = list(known)
    for key, asked in plan.members.items():
        found_ids = next(replies)
        nodes = [decode_node(key, machine_id, next(replies)) for machine_id in asked]
        if key in members:
            wrong = isinstance(found_ids, WrongType)
            members[key] = asked if wrong else tuple(ids(keys.nodes(*key), found_ids))
            views.append(ClusterView.of(key, 0, (node for node in nodes if node is not None)))
    senders = tuple(machine_id for machine_id in plan.machine_ids if next(replies))
    hashes = {sender: SenderHashes.of(replies) for sender in plan.senders}
    records = {sender: records_of(sender, next(replies)) for sender in plan.path_senders}
    seen: list[Receipt] = []
    for receiver, watched in plan.watches.items():
        modules: Mapping[bytes, bytes] = next(replies)
        heartbeat = _heartbeat(receiver, modules)
        found = [receipts.of(w, heartbeat, replies, read=not plan.summed) for w in watched]
        if receiver in watches:
            watches[receiver] = _watches(receiver, modules)
            seen += found
    broken = tuple(paths.broken(views, records, int(now * 1000)))
    counters = {sender: found.counters for sender, found in hashes.items()}
    snapshot = Snapshot(
        now=now,
        clusters=tuple(views),
        receipts=tuple(seen),
        paths=broken,
        offered={key: sender_hashes.offered(key, counters) for key in members},
        stalled=stalled,
        senders=plan.senders,
        listening=tuple(each.watch for each in seen if each.listens(int(now * 1000))),
    )
    wanted = _Plan(members, watches, probers, senders, path_senders, plan.summed)
    return wanted, snapshot, traffic.flows_of(views, hashes)


def _stalled(
    due: Sequence[float],
    now: float,
    suspension: Suspension | None,
    workers: Iterable[tuple[bytes | None, int]],
) -> str:
    """Return the reason why no process updates states, empty if one does.

    ``workers``: the field `OURS` and the TTL of each maintenance worker.
    """
    if suspension is not None:
        return "RQ is suspended, no worker starts a job"
    late_s = fleet.last_tick_s(due, now)
    if late_s is None or late_s > fleet.LATE_S:
        return "no scheduler runs"
    lives = (ours is not None and fleet.silent_s(ttl) < fleet.SILENT_S for ours, ttl in workers)
    return "" if any(lives) else "no maintenance worker runs"


def _watches(receiver: int, modules: Mapping[bytes, bytes]) -> tuple[Watch, ...]:
    clocked = [watch for watch in watches_in(receiver, modules) if watch.cluster_id]
    return tuple(sorted(clocked, key=lambda watch: (watch.cluster_id, watch.token)))


def _heartbeat(receiver: int, modules: Mapping[bytes, bytes]) -> int:
    return number(keys.modules(receiver), "field heartbeat", modules.get(b"heartbeat"))
