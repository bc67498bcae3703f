"""Fields of a sender's deliveries per destination, ``cluster/machine_id/generation``."""

from __future__ import annotations

from collections.abc import Sequence

from redis.client import Pipeline

from clusterer.membership import Node
from clusterer.store import keys

STATS = ("sent", "failed", "skipped", "lost", "last_delivered")
"""Counters of each sender's packets to each destination."""


_AT_ONCE = 1000
"""Destinations that one command names: Redis serves no other client meanwhile."""


def field_of(node: Node) -> str:
    """Return the name of a destination; a node with another address is another destination."""
    return f"{node.cluster_id}/{node.machine_id}/{node.generation}"


def forget(pipe: Pipeline, sender: int, fields: Sequence[str]) -> None:
    """Add to ``pipe`` the deletion of a sender's fields of these destinations."""
    for first in range(0, len(fields), _AT_ONCE):
        some = fields[first : first + _AT_ONCE]
        for name in (keys.committed, keys.committed_count, keys.closing):
            pipe.hdel(name(sender), *some)
        pipe.hdel(keys.stats(sender), *(f"{field}/{name}" for field in some for name in STATS))
