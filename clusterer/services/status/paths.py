"""Which senders reach which node: paths that are not up, and their number per node."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from clusterer.membership import Condition, Node, State
from clusterer.membership.paths import Path, is_void
from clusterer.services.context import Context
from clusterer.store import ClusterView
from clusterer.store.audit import AuditStore, PathEvents

Records = Mapping[int, Mapping[str, Path]]
"""The records of each sender, by the destination's field."""


@dataclass(frozen=True, slots=True)
class BrokenPath:
    """A path that is not up: the sender skips the node."""

    sender: int
    node: Node
    path: Path

    @property
    def condition(self) -> Condition:
        """Probing or disabled."""
        return self.path.condition(self.node)


class Reach(NamedTuple):
    """How many of a node's live senders reach it."""

    reached: int
    senders: int

    def __str__(self) -> str:
        return f"{self.reached} of {self.senders}"


def read(context: Context) -> tuple[Records, int]:
    """Return all records, and Redis ms; one or two round trips. Raises `StateUnavailable`."""
    senders = sorted(context.paths.counters())
    found = context.paths.all_records(senders) if senders else {}
    now_ms = max((records.now_ms for records in found.values()), default=0)
    return found, now_ms


def broken(views: Iterable[ClusterView], records: Records, now_ms: int) -> list[BrokenPath]:
    """Return the paths that are not up, by cluster, sender and node. Void records do not count."""
    return [
        BrokenPath(sender, node, path)
        for view in views
        for sender, paths in sorted(records.items())
        for node in view.nodes.values()
        if (path := paths.get(node.destination)) is not None
        and path.state is not State.UP
        and node.state is not State.DOWN
        and not is_void(path, node, now_ms)
    ]


def live_senders(view: ClusterView, failing: Iterable[Collection[int]]) -> set[int]:
    """Return the senders of a cluster whose own node is up, or that have a record of a path.

    ``failing``: for each node of the cluster, the senders that do not reach it.
    """
    recording = {sender for senders in failing for sender in senders}
    return {i for i, node in view.nodes.items() if node.state is State.UP or i in recording}


def reach(
    view: ClusterView, senders: Mapping[int, Collection[int]], found: Iterable[BrokenPath]
) -> dict[int, Reach]:
    """Return for each node of a cluster how many of its live senders reach it.

    ``senders``: machine_id of a node → the senders that have sent to it. No sender reaches a node
    whose verdict is not up. Nodes without a live sender are left out.
    """
    failing: dict[int, set[int]] = {}
    for item in found:
        if item.node.cluster == view.key:
            failing.setdefault(item.node.machine_id, set()).add(item.sender)
    live = live_senders(view, failing.values())
    reached: dict[int, Reach] = {}
    for machine_id, node in view.nodes.items():
        broken_from = failing.get(machine_id, set())
        known = (live & {*senders.get(machine_id, ())} | broken_from) - {machine_id}
        if known and node.state is not State.DOWN:
            up = node.state is State.UP
            reached[machine_id] = Reach(len(known - broken_from) if up else 0, len(known))
    return reached


def since(context: Context, found: Sequence[BrokenPath]) -> dict[tuple[int, str], float]:
    """Return when each path was last up: (sender, destination's field) → UNIX seconds.

    From the path events. A failure with which the verdict fell is an event of the node. A path
    whose event Redis has no longer is left out.
    """
    ends_of = _fallen(context, [item.node for item in found if item.node.state is not State.UP])
    wanted = {(item.node.cluster_id, item.sender, item.node.machine_id): item for item in found}
    times = {
        (item.sender, item.node.destination): fell
        for item in found
        if (fell := ends_of.get(item.node, _NEVER).fell_at) is not None
    }
    store = PathEvents(context.settings, context.redis)
    for event in store.latest({cluster_id for cluster_id, _, _ in wanted}):
        place = event.cluster_id, event.sender, event.machine_id
        item = wanted.pop(place, None) if event.before == Condition.UP.value else None
        # An event of the time before the node last became up is of an earlier failure; so is one of
        # the same ms, as no attempt fails in the ms in which its sender may begin it.
        if item is not None and event.at > ends_of.get(item.node, _NEVER).up_at:
            times[item.sender, item.node.destination] = event.at
        if not wanted:
            break
    return times


class _Fall(NamedTuple):
    """When the verdict of a node fell, and when it became up before that, UNIX seconds."""

    fell_at: float | None
    up_at: float


_NEVER = _Fall(None, 0.0)


def _fallen(context: Context, nodes: Collection[Node]) -> dict[Node, _Fall]:
    """Return when the verdicts of nodes that are not up have fallen, from their events."""
    wanted = {(node.cluster_id, node.protocol, node.machine_id): node for node in nodes}
    found: dict[Node, _Fall] = {}
    store = AuditStore(context.settings, context.redis)
    for event in store.latest({node.cluster_id for node in nodes}):
        node = wanted.get((event.cluster_id, event.protocol, event.machine_id))
        if node is None:
            continue
        if event.before == Condition.UP.value != event.after and node not in found:
            found[node] = _Fall(event.at, 0.0)
        elif event.after == Condition.UP.value:
            found[node] = _Fall(found.get(node, _NEVER).fell_at, event.at)
            del wanted[event.cluster_id, event.protocol, event.machine_id]
        if not wanted:
            break
    return found
