"""The rows of the live views, from two snapshots. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from clusterer.membership import Condition, Node
from clusterer.services.live.snapshot import Receipt, Snapshot
from clusterer.services.status import paths, totals
from clusterer.services.status.paths import BrokenPath, Reach
from clusterer.services.status.traffic import Traffic
from clusterer.store import ClusterKey
from clusterer.store.watches import LISTENING_MS

BEHIND_S = 5.0
"""A node is behind if its oldest waiting packet is at least so old."""

_Flow = tuple[int, int, str, int]


@dataclass(frozen=True, slots=True)
class LastSeen:
    """The time since an instance last saw a node, for one module."""

    receiver: int
    """machine_id of the instance."""
    module: str
    age_s: float
    muted_s: float | None
    """Seconds from now until the mute of the node ends; None if the node is not muted."""
    timeout_s: float
    """Module timeout; 0 if the module never mutes."""


@dataclass(frozen=True, slots=True)
class Row:
    """One node."""

    node: Node
    back_in_s: int | None
    """Seconds until a disabled node is enabled again; None for all others."""
    backlog: int | None
    """Packets of all senders that the node has not received; None if their number is not known."""
    oldest_s: float | None
    """Age of the oldest packet in the backlog; None if no packet waits."""
    in_per_s: float | None
    """Packets per second delivered to the node; None without a sender, or at first."""
    out_per_s: float | None
    """Packets per second delivered from the node to others; None if it does not send through us."""
    flows: tuple[Traffic, ...]
    """Traffic of each sender to the node."""
    last_seen: tuple[LastSeen, ...]
    """One item for each module of each instance that listens now, by module and receiver."""
    broken: tuple[BrokenPath, ...] = ()
    """Paths to the node that are not up."""
    reach: Reach | None = None
    """How many of the node's live senders reach it; None without a live sender."""

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

    def only(self, *, troubled: bool) -> ClusterRows:
        """Return the cluster with only the nodes that need attention, or only the others."""
        return replace(self, rows=tuple(row for row in self.rows if row.troubled is troubled))


def rows(before: Snapshot | None, after: Snapshot) -> tuple[ClusterRows, ...]:
    """Return the rows of every cluster in ``after``; rates count from ``before``."""
    rates = _rates(before, after)
    to: dict[tuple[ClusterKey, int], list[Traffic]] = {}
    out: dict[tuple[ClusterKey, int], list[Traffic]] = {}
    for item in after.traffic:
        key = ClusterKey(item.cluster_id, item.protocol)
        to.setdefault((key, item.machine_id), []).append(item)
        out.setdefault((key, item.sender), []).append(item)
    last_seen = _last_seen(after)
    broken: dict[tuple[ClusterKey, int], list[BrokenPath]] = {}
    for path in after.paths:
        broken.setdefault((path.key, path.node.machine_id), []).append(path)
    found = []
    for view in after.clusters:
        senders = {i: [item.sender for item in to.get((view.key, i), ())] for i in view.nodes}
        reach = paths.reach(view, senders, after.paths)
        of_nodes = []
        for machine_id, node in view.nodes.items():
            place = view.key, machine_id
            flows = to.get(place, ())
            of_nodes.append(
                Row(
                    node,
                    back_in_s(node, after.now),
                    totals.backlog(flows),
                    totals.oldest_s(flows),
                    _sum(rates, flows),
                    _sum(rates, out.get(place, ())),
                    tuple(flows),
                    tuple(last_seen.get((view.key.cluster_id, machine_id), ())),
                    tuple(broken.get(place, ())),
                    reach.get(machine_id),
                )
            )
        found.append(ClusterRows(view.key, tuple(of_nodes)))
    return tuple(found)


def back_in_s(node: Node, now: float) -> int | None:
    """Return the seconds until a disabled node is enabled again; None for all others."""
    return node.enabled_in_s(now)


def _rates(before: Snapshot | None, after: Snapshot) -> Mapping[_Flow, float]:
    if before is None or after.now <= before.now:
        return {}
    sent = {_id(item): item.sent for item in before.traffic}
    # A counter that went back was deleted in between and began at 0.
    grown = {
        _id(item): item.sent - known
        if (known := sent.get(_id(item), 0)) <= item.sent
        else item.sent
        for item in after.traffic
    }
    return {flow: count / (after.now - before.now) for flow, count in grown.items()}


def _id(item: Traffic) -> _Flow:
    return item.sender, item.cluster_id, item.protocol, item.machine_id


def _sum(rates: Mapping[_Flow, float], flows: Iterable[Traffic]) -> float | None:
    found = [rates[_id(item)] for item in flows if _id(item) in rates]
    return sum(found) if found else None


def _last_seen(snapshot: Snapshot) -> Mapping[tuple[int, int], list[LastSeen]]:
    """Return by (cluster_id, machine_id) when the instances that listen last saw a node."""
    now_ms = snapshot.now * 1000
    found: dict[tuple[int, int], list[LastSeen]] = {}
    for receipt in snapshot.receipts:
        if now_ms - receipt.heartbeat_ms > LISTENING_MS:
            continue
        for machine_id in sorted({*receipt.last_seen_ms, *receipt.muted_ms}):
            place = receipt.watch.cluster_id, machine_id
            found.setdefault(place, []).append(_of(receipt, machine_id, now_ms))
    for items in found.values():
        items.sort(key=lambda item: (item.module, item.receiver))
    return found


def _of(receipt: Receipt, machine_id: int, now_ms: float) -> LastSeen:
    until = receipt.muted_ms.get(machine_id)
    return LastSeen(
        receipt.watch.receiver,
        receipt.watch.token,
        max(0.0, now_ms - receipt.last_seen_ms.get(machine_id, 0)) / 1000,
        None if until is None else max(0.0, until - now_ms) / 1000,
        receipt.watch.timeout_ms / 1000,
    )


def _worse(item: LastSeen, known: LastSeen) -> bool:
    muted = item.muted_s is not None, known.muted_s is not None
    return muted[0] if muted[0] != muted[1] else item.age_s < known.age_s
