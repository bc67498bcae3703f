"""What a reload puts right beside the nodes: lost or wrong sets, times and counters."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from math import inf

from clusterer.membership.machine import next_look
from clusterer.membership.node import Node
from clusterer.membership.views import ClusterKey, ClusterView

_LATE_S = 3600.0
"""A node that is due later than this after its ``duration`` would never be looked at."""

VERSION_GAP = 1_000_000
"""Distance of a lost version from all known versions: processes may remember higher versions."""


@dataclass(frozen=True, slots=True)
class Keeping:
    """How the keys of a cluster beside its nodes' hashes are."""

    listed: bool
    """Whether the set of clusters has it."""
    members: frozenset[int]
    """machine_ids in the set of nodes."""
    damaged: frozenset[int]
    """machine_ids whose hash is there and cannot be read as a node without the table."""
    due_ms: Mapping[int, float]
    """Sorted set of times: machine_id → Redis ms."""
    strangers: tuple[tuple[str, bytes], ...]
    """Key and member (or field) of what cannot be there."""
    wrong: tuple[str, ...]
    """Keys that hold another type than they have to."""
    version: int | None
    """The counter; None if it is lost or no number."""


@dataclass(frozen=True, slots=True)
class Repairs:
    """What the script does beside adding, changing and removing nodes."""

    wrong: tuple[str, ...] = ()
    """Keys to be deleted."""
    strangers: tuple[tuple[str, bytes], ...] = ()
    """Members to be removed."""
    joined: tuple[int, ...] = ()
    """Nodes that the set of nodes has to get."""
    dropped: tuple[int, ...] = ()
    """Nodes of which only remains are there."""
    noted: tuple[int, ...] = ()
    """Nodes of which it is not known what the table said last."""
    due: tuple[Node, ...] = ()
    """Nodes whose time is to be set."""
    version: int = 0
    """Where the counter begins again, above all versions of nodes; 0: it is as it has to be."""
    listed: bool = False
    """Whether the set of clusters has to get, or lose, the cluster."""
    key: ClusterKey = field(default=ClusterKey(0, ""))

    def __bool__(self) -> bool:
        return any(getattr(self, item.name) for item in fields(self) if item.name != "key")


def plan_repairs(
    view: ClusterView,
    keeping: Keeping | None,
    staying: Collection[Node],
    *,
    wanted: Collection[int],
    noted: Collection[int] = (),
    now: float | None,
) -> Repairs:
    """Return what is to be put right in a cluster; nothing if it is not known how its keys are.

    ``staying``: nodes that stay as they are; ``wanted``: machine_ids of all that the cluster is
    to have; ``noted``: those of which it is not known what the table said last; ``now``: UNIX
    time in seconds, of Redis.
    """
    if keeping is None:
        return Repairs()
    kept = {node.machine_id for node in staying}
    remains = (keeping.members | keeping.damaged) - set(wanted) - view.nodes.keys()
    highest = max((node.version for node in view.nodes.values()), default=0)
    lost = keeping.version is None or keeping.version < highest
    return Repairs(
        key=view.key,
        wrong=keeping.wrong,
        strangers=keeping.strangers,
        joined=tuple(sorted(kept - keeping.members)),
        dropped=tuple(sorted(remains)),
        noted=tuple(noted),
        due=tuple(node for node in staying if _is_forgotten(node, keeping.due_ms, now)),
        version=highest + VERSION_GAP if view.nodes and lost else 0,
        listed=bool(view.nodes) != keeping.listed and bool(view.nodes) == bool(wanted),
    )


def _is_forgotten(node: Node, due_ms: Mapping[int, float], now: float | None) -> bool:
    """Whether a node that has to be looked at again never would be."""
    if now is None or next_look(node, now, 0.0) is None:
        return False
    return due_ms.get(node.machine_id, inf) > (now + node.duration + _LATE_S) * 1000
