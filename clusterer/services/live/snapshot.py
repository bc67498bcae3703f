"""Reads the data of a live view at one moment, usually in one round trip."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from clusterer.jobs.state_jobs import StateJobsRead
from clusterer.services.context import Context
from clusterer.services.status import paths, sums
from clusterer.services.status.paths import BrokenPath
from clusterer.services.status.sums import Sums
from clusterer.store import ClusterKey, ClusterView, last_seen, sender_hashes, translated
from clusterer.store.badvalues import Command, read_all
from clusterer.store.client import seconds_of
from clusterer.store.last_seen import LastSeenTimes
from clusterer.store.live_reads import ListeningRead, PathsRead
from clusterer.store.watches import Watch

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
class _Reads:
    """The reads of a snapshot without traffic: one round trip together.

    Each knows the keys that the previous read found.
    """

    jobs: StateJobsRead = field(default_factory=StateJobsRead)
    paths: PathsRead = field(default_factory=PathsRead)
    listening: ListeningRead = field(default_factory=ListeningRead)

    def commands(self) -> Iterator[Command]:
        """Yield the commands of all reads."""
        yield ("time",)
        for read in (self.jobs, self.paths, self.listening):
            yield from read.commands()

    def of(self, replies: Iterator[Any], views: Sequence[ClusterView]) -> tuple[_Reads, Snapshot]:
        """Return, from the replies to `commands`, the next reads and the snapshot."""
        now = seconds_of(next(replies))
        jobs_read, stalled = self.jobs.of(replies, now)
        paths_read, records = self.paths.of(replies)
        listening_read, listening = self.listening.of(replies, now * 1000)
        snapshot = Snapshot(
            now=now,
            clusters=tuple(views),
            paths=tuple(paths.broken(views, records, int(now * 1000))),
            stalled=stalled,
            listening=tuple(listening),
        )
        return _Reads(jobs_read, paths_read, listening_read), snapshot


class Reader:
    """Takes snapshots, and keeps from one to the next which keys to read.

    The cost grows with the nodes and the senders; the nodes are read only if they change.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._reads = _Reads()
        self._senders: Sequence[int] = ()
        """Senders of the last snapshot."""

    def read(self) -> Snapshot:
        """Return a snapshot of this moment. Raises `StateUnavailable`."""
        self._context.directory.refresh()
        views = tuple(self._context.directory.snapshot.values())
        found = Snapshot(0.0)
        with translated(self._context.settings, "read the clusters"):
            for _ in range(_ROUNDS):
                replies = read_all(self._context.redis, list(self._reads.commands()))
                reads, found = self._reads.of(iter(replies), views)
                if reads == self._reads:
                    break
                self._reads = reads
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
