"""The rows of the live views, from two snapshots. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from clusterer.membership import Condition, Node, NodeKey
from clusterer.membership.views import all_nodes
from clusterer.services.live.last_seen import LastSeen, by_node
from clusterer.services.live.snapshot import Snapshot
from clusterer.services.status.paths import BrokenPath, Reach
from clusterer.services.status.totals import ToNode
from clusterer.services.status.traffic import Traffic
from clusterer.store import ClusterKey

BEHIND_S = 5.0
"""A node is behind if its oldest waiting packet is at least so old."""


@dataclass(frozen=True, slots=True)
class Row:
    """One node."""

    node: Node
    enabled_in_s: int | None
    """Seconds until a disabled node is enabled again; None for all others."""
    backlog: int | None
    """Packets of all senders that the node has not received; None if their number is not known."""
    oldest_s: float | None
    """Age of the oldest packet in the backlog; None if no packet waits."""
    in_per_s: float | None
    """Packets per second delivered to the node; None without a sender, or at first."""
    out_per_s: float | None
    """Packets per second delivered from the node to others; None if it does not send through us."""
    lost: int
    """Packets of all senders to the node that were trimmed from a log before the delivery."""
    last_seen: tuple[LastSeen, ...]
    """One item for each module, and for each instance that mutes the node, by module and receiver;
    in a row with pairs, for each module of each instance that listens."""
    broken: tuple[BrokenPath, ...] = ()
    """Paths to the node that are not up."""
    reach: Reach | None = None
    """How many of the node's live senders reach it; None without a live sender."""
    flows: tuple[Traffic, ...] = ()
    """In a row with pairs, the traffic of each sender to the node."""

    @property
    def partly_reached(self) -> bool:
        """Whether the node is up, and a sender does not reach it."""
        return bool(self.broken) and self.node.condition is Condition.UP

    @property
    def troubled(self) -> bool:
        """Whether the node needs the operator's attention."""
        return (
            self.node.condition is not Condition.UP
            or (self.oldest_s or 0.0) >= BEHIND_S
            or any(item.muted_s is not None for item in self.last_seen)
            or self.partly_reached
        )

    def by_module(self) -> dict[str, LastSeen]:
        """Return for each module the worst item: of an instance that mutes the node, else of the
        instance that saw the node last.
        """
        found: dict[str, LastSeen] = {}
        for item in self.last_seen:
            known = found.get(item.module)
            if known is None or _worse(item, known):
                found[item.module] = item
        return found


@dataclass(frozen=True, slots=True)
class ClusterRows:
    """One cluster."""

    key: ClusterKey
    rows: tuple[Row, ...]

    def count(self, condition: Condition) -> int:
        return sum(row.node.condition is condition for row in self.rows)

    def broken_paths(self) -> list[BrokenPath]:
        """Return the broken paths to all nodes of the cluster."""
        return [path for row in self.rows for path in row.broken]

    def only(self, *, troubled: bool) -> ClusterRows:
        """Return the cluster with only the nodes that need attention, or only the others."""
        return replace(self, rows=tuple(row for row in self.rows if row.troubled is troubled))


def rows(before: Snapshot | None, after: Snapshot) -> tuple[ClusterRows, ...]:
    """Return the rows of every cluster in ``after``; rates count from ``before``."""
    to, into, out_of = _to_nodes(after), *_rates(before, after)
    last_seen = by_node(after.last_seen, after.now)
    broken: dict[NodeKey, list[BrokenPath]] = {}
    for path in after.paths:
        broken.setdefault(path.node.key, []).append(path)

    def row(node: Node) -> Row:
        key = node.key
        known = to.get(key)
        return Row(
            node,
            node.enabled_in_s(after.now),
            known.backlog if known else 0,
            known.oldest_s if known else None,
            into.get(key),
            out_of.get(key),
            known.lost if known else 0,
            tuple(last_seen.get(node.row_key, ())),
            tuple(broken.get(key, ())),
            after.sums.reach.get(key),
        )

    return tuple(
        ClusterRows(view.key, tuple(map(row, view.nodes.values()))) for view in after.clusters
    )


def _rates(
    before: Snapshot | None, after: Snapshot
) -> tuple[Mapping[NodeKey, float], Mapping[NodeKey, float]]:
    """Return the packets per second to each node, and from each sender."""
    if before is None or after.now <= before.now:
        return {}, {}
    seconds, same = after.now - before.now, _same_nodes(before, after)
    had = {place: item.sent for place, item in _to_nodes(before).items() if place in same}
    into = {p: _grown(had.get(p, 0), i.sent) / seconds for p, i in _to_nodes(after).items()}
    sent_by, now_sent = before.sums.sent_by, after.sums.sent_by
    return into, {p: _grown(sent_by.get(p, 0), sent) / seconds for p, sent in now_sent.items()}


def _to_nodes(snapshot: Snapshot) -> Mapping[NodeKey, ToNode]:
    return {item.node_key: item for item in snapshot.sums.to_nodes}


def _same_nodes(before: Snapshot, after: Snapshot) -> set[NodeKey]:
    """Return the nodes with the same generation, whose counters go on."""
    was = {node.key: node.generation for node in all_nodes(before.clusters)}
    return {node.key for node in all_nodes(after.clusters) if was.get(node.key) == node.generation}


def _grown(was: int, now: int) -> int:
    """Return the growth of a sum; 0 if a sender was forgotten, and the sum went back."""
    return max(0, now - was)


def _worse(item: LastSeen, known: LastSeen) -> bool:
    muted = item.muted_s is not None, known.muted_s is not None
    return muted[0] if muted[0] != muted[1] else item.age_s < known.age_s
