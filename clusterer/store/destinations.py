"""What is kept of a sender's deliveries per destination, ``cluster/machine/generation``."""

from __future__ import annotations

from collections.abc import Sequence

from redis.client import Pipeline

from clusterer.membership import Node
from clusterer.store import keys

STATS = ("sent", "failed", "skipped", "lost", "last_delivered")
"""What is counted of each sender's packets to each destination."""


def field_of(node: Node) -> str:
    """Return the name of a destination; a node with another address is another one."""
    return f"{node.cluster_id}/{node.machine_id}/{node.generation}"


def forget(pipe: Pipeline, sender: int, fields: Sequence[str]) -> None:
    """Add to ``pipe`` that all that is kept of these destinations of a sender is deleted."""
    for name in (keys.cursor, keys.position, keys.fence):
        pipe.hdel(name(sender), *fields)
    pipe.hdel(keys.stats(sender), *(f"{field}/{name}" for field in fields for name in STATS))
