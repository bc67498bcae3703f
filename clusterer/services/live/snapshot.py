"""Reads the data of a live view at one moment, usually in one round trip."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from clusterer.jobs import OURS, SUSPENDED, Suspension
from clusterer.jobs.fleet import LATE_S, SILENT_S, last_tick_s, silent_s
from clusterer.jobs.keys import EVERY_SECOND_IDS, MAINTENANCE_WORKERS, SCHEDULED
from clusterer.services.context import Context
from clusterer.services.status import paths, sums
from clusterer.services.status.paths import BrokenPath
from clusterer.services.status.sums import Sums
from clusterer.store import ClusterKey, ClusterView, keys, last_seen, sender_hashes, translated
from clusterer.store.badvalues import Command, ids, number, read_all, text
from clusterer.store.last_seen import LastSeenTimes
from clusterer.store.paths import records_of
from clusterer.store.receptions import watches_in
from clusterer.store.watches import LISTENING_MS, Watch

_ROUNDS = 6
"""Most reads of one snapshot: the first snapshot needs three, a later one usually one."""

LOOKED_UP = 20
"""Most backlogs per snapshot that come from the logs themselves: several round trips each."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All clusters, the sums of their traffic, and the nodes that the instances saw.

    `last_seen` has one item for each module, with the latest times of all instances, and one of
    each instance that mutes nodes, for these nodes only. `node_pairs` reads the pairs of one node.
    """

    now: float
    """Redis TIME, UNIX seconds."""
    clusters: tuple[ClusterView, ...] = ()
    last_seen: tuple[LastSeenTimes, ...] = ()
    paths: tuple[BrokenPath, ...] = ()
    """Paths that are not up."""
    offered: Mapping[ClusterKey, int] = field(default_factory=dict)
    """Packets that all senders ever sent to each cluster."""
    stalled: str = ""
    """Reason why no process updates states; empty if one does."""
    sums: Sums = field(default_factory=Sums)
    """The traffic by node and by sender."""
    senders: tuple[int, ...] = ()
    """machine_ids that have sent packets."""
    listening: tuple[Watch, ...] = ()
    """Registrations of the instances that listen now."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """The keys to read: those that the previous read found."""

    watches: Mapping[int, tuple[Watch, ...]] = field(default_factory=dict)
    """Per instance."""
    probers: tuple[bytes, ...] = ()
    """RQ's keys of maintenance workers."""
    path_senders: tuple[int, ...] = ()
    """machine_ids with records of paths."""


class Reader:
    """Takes snapshots, and keeps from one to the next the plan of the keys to read.

    The cost grows with the nodes and the senders; the nodes are read only if they change.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._plan = _Plan()
        self._senders: Sequence[int] = ()
        """Senders of the last snapshot."""

    def read(self) -> Snapshot:
        """Return a snapshot of this moment. Raises `StateUnavailable`."""
        self._context.directory.refresh()
        views = tuple(self._context.directory.snapshot.values())
        found = Snapshot(0.0)
        with translated(self._context.settings, "read the clusters"):
            for _ in range(_ROUNDS):
                replies = read_all(self._context.redis, list(_commands(self._plan)))
                plan, found = _understood(self._plan, iter(replies), views)
                if plan == self._plan:
                    break
                self._plan = plan
            return self._summed(found)

    def _summed(self, found: Snapshot) -> Snapshot:
        """Return a snapshot with sums of the traffic, and the latest clocks of all instances."""
        context, views, now = self._context, found.clusters, found.now
        machine_ids = {machine_id for view in views for machine_id in view.nodes}
        senders = sender_hashes.senders(context.redis, machine_ids, self._senders)
        self._senders = senders
        counters = sender_hashes.counters(context.redis, senders)
        return replace(
            found,
            last_seen=last_seen.summed(context.redis, found.listening),
            offered={view.key: sender_hashes.offered(view.key, counters) for view in views},
            sums=sums.read(context, views, found.paths, now, LOOKED_UP, senders=senders),
            senders=tuple(senders),
        )


def _commands(plan: _Plan) -> Iterator[Command]:
    yield ("time",)
    yield "smembers", keys.INSTANCES
    yield "zrange", SCHEDULED, 0, -1, False, True
    yield "smembers", MAINTENANCE_WORKERS
    yield "pttl", SUSPENDED
    yield "hkeys", keys.PATHS
    for worker in plan.probers:
        yield "hget", worker, OURS
        yield "ttl", worker
    yield from (("hgetall", keys.paths(sender)) for sender in plan.path_senders)
    yield from (("hgetall", keys.modules(receiver)) for receiver in plan.watches)


def _understood(
    plan: _Plan, replies: Iterator[Any], views: Sequence[ClusterView]
) -> tuple[_Plan, Snapshot]:
    """Return the plan for the next read, and the snapshot that ``plan`` gave, without traffic."""
    (seconds, micros), instances = next(replies), next(replies)
    now = float(seconds) + float(micros) / 1e6
    schedule, probers = next(replies), tuple(sorted(next(replies)))
    suspension = Suspension.of(next(replies))
    path_senders = tuple(ids(keys.PATHS, next(replies)))
    workers = [(next(replies), next(replies)) for _ in plan.probers]
    due = [at for name, at in schedule if text(name) in EVERY_SECOND_IDS]
    records = {sender: records_of(sender, next(replies)) for sender in plan.path_senders}
    watches: dict[int, tuple[Watch, ...]] = dict.fromkeys(ids(keys.INSTANCES, instances), ())
    listening: list[Watch] = []
    for receiver, watched in plan.watches.items():
        modules: Mapping[bytes, bytes] = next(replies)
        if receiver in watches:
            watches[receiver] = _watches(receiver, modules)
            listening += (
                watched if now * 1000 - _heartbeat(receiver, modules) <= LISTENING_MS else ()
            )
    snapshot = Snapshot(
        now=now,
        clusters=tuple(views),
        paths=tuple(paths.broken(views, records, int(now * 1000))),
        stalled=_stalled(due, now, suspension, workers),
        listening=tuple(listening),
    )
    return _Plan(watches, probers, path_senders), snapshot


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
    late_s = last_tick_s(due, now)
    if late_s is None or late_s > LATE_S:
        return "no scheduler runs"
    lives = (ours is not None and silent_s(ttl) < SILENT_S for ours, ttl in workers)
    return "" if any(lives) else "no maintenance worker runs"


def _watches(receiver: int, modules: Mapping[bytes, bytes]) -> tuple[Watch, ...]:
    clocked = [watch for watch in watches_in(receiver, modules) if watch.cluster_id]
    return tuple(sorted(clocked, key=lambda watch: (watch.cluster_id, watch.token)))


def _heartbeat(receiver: int, modules: Mapping[bytes, bytes]) -> int:
    return number(keys.modules(receiver), "field heartbeat", modules.get(b"heartbeat"))
