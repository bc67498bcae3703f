"""Fields of a sender's deliveries per destination, ``cluster/machine_id/generation``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from redis.client import Pipeline

from clusterer.ids import PROTO_BIN
from clusterer.membership import Node
from clusterer.membership.views import ClusterKey, ClusterView
from clusterer.store import keys

STATS = ("sent", "failed", "skipped", "lost", "last_delivered")
"""Counters of each sender's packets to each destination."""


_AT_ONCE = 1000
"""Destinations that one command names: Redis serves no other client meanwhile."""


def field_of(node: Node) -> str:
    """Return the name of a destination; a node with another address is another destination."""
    return f"{node.cluster_id}/{node.machine_id}/{node.generation}"


def node_of(field: str, views: Mapping[ClusterKey, ClusterView]) -> Node | None:
    """Return the node that `field_of` named; None if it is gone, was moved, or was never one."""
    cluster_id, _, rest = field.partition("/")
    machine_id = rest.partition("/")[0]
    if not (cluster_id.isdecimal() and machine_id.isdecimal()):
        return None
    view = views.get(ClusterKey(int(cluster_id), PROTO_BIN))
    node = view.nodes.get(int(machine_id)) if view else None
    return node if node is not None and field_of(node) == field else None


def forget(pipe: Pipeline, sender: int, fields: Sequence[str]) -> None:
    """Add to ``pipe`` the deletion of a sender's fields of these destinations."""
    for first in range(0, len(fields), _AT_ONCE):
        some = fields[first : first + _AT_ONCE]
        for name in (keys.committed, keys.committed_count, keys.closing):
            pipe.hdel(name(sender), *some)
        pipe.hdel(keys.stats(sender), *(f"{field}/{name}" for field in some for name in STATS))
