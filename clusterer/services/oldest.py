"""How long the oldest packet in each sender's log has been waiting for a node that is up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from clusterer.membership import Node, State
from clusterer.services.context import Context
from clusterer.services.listing import Listing, Traffic
from clusterer.store import keys, translated
from clusterer.store.encoding import as_text
from clusterer.store.scripts import script


@dataclass(frozen=True, slots=True)
class SenderBacklog:
    """What one machine has sent and nobody has delivered yet."""

    sender: int
    packets: int
    """For the node that is furthest back; nodes that are not up do not count."""
    oldest_s: float
    """Age of the oldest of them, by Redis's clock; 0 if there is none."""
    waiting: int
    """The same as ``packets`` for nodes that are not up (replay)."""


def run(context: Context, listing: Listing) -> list[SenderBacklog]:
    """Return the backlog of every sender in ``listing``. Raises `StateUnavailable`."""
    nodes = {
        (view.key.cluster_id, view.key.protocol, node.machine_id): node
        for view in listing.clusters
        for node in view.nodes.values()
    }
    flows: dict[int, list[tuple[Traffic, Node]]] = {}
    for item in listing.traffic:
        node = nodes[item.cluster_id, item.protocol, item.machine_id]
        flows.setdefault(item.sender, []).append((item, node))
    return [_of(context, sender, found, listing.now) for sender, found in flows.items()]


def _of(
    context: Context, sender: int, flows: list[tuple[Traffic, Node]], now: float
) -> SenderBacklog:
    behind = [(item, node) for item, node in flows if item.backlog]
    up = [(item, node) for item, node in behind if node.state is State.UP]
    waiting = [item.backlog or 0 for item, node in behind if node.state is not State.UP]
    return SenderBacklog(
        sender,
        max((item.backlog or 0 for item, _ in up), default=0),
        _oldest_s(context, sender, [node for _, node in up], now) if up else 0.0,
        max(waiting, default=0),
    )


def _oldest_s(context: Context, sender: int, nodes: Iterable[Node], now: float) -> float:
    log = keys.log(sender)
    with translated(context.settings, f"look into the log of machine {sender}"):
        cursors = context.redis.hgetall(keys.cursor(sender))
        sequences = []
        for node in nodes:
            field = f"{node.cluster_id}/{node.machine_id}/{node.generation}".encode()
            reached = cursors.get(field)
            if reached is None:
                reached = script("seek")(context.redis, [log], node.generation, 0)
            sequences.append(int(reached))
        entries: Any = context.redis.xrange(log, min=str(min(sequences) + 1), count=1)
    if not entries:
        return 0.0
    ms = int(as_text(entries[0][0]).partition("-")[2])
    return max(0.0, now - ms / 1000)
