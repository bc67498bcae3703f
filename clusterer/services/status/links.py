"""What instances see as members of 3.x clusters: the links to the other nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from clusterer.services.context import Context
from clusterer.store.links import LinkRecord, LinkStore


@dataclass(frozen=True, slots=True)
class SeenLink:
    """The link of one instance to one node."""

    cluster_id: int
    instance: int
    machine_id: int
    record: LinkRecord


def run(
    context: Context,
    cluster_id: int | None = None,
    instance: int | None = None,
    machine_id: int | None = None,
) -> list[SeenLink]:
    """Return the links by cluster, instance and node; None: of all. Raises `StateUnavailable`."""
    found = [
        SeenLink(cluster, receiver, node, record)
        for receiver, links in LinkStore(context.settings, context.redis).links().items()
        for (cluster, node), record in links.items()
        if cluster_id in {None, cluster}
        and instance in {None, receiver}
        and machine_id in {None, node}
    ]
    return sorted(found, key=lambda each: (each.cluster_id, each.instance, each.machine_id))


def as_json(found: Sequence[SeenLink]) -> list[dict[str, Any]]:
    """Return links as JSON knows them; times are UNIX seconds of the instance's clock."""
    return [
        {
            "cluster_id": each.cluster_id,
            "instance": each.instance,
            "machine_id": each.machine_id,
            "state": each.record.state,
            "since": each.record.since,
            "next_hop": each.record.next_hop,
            "neighbours": list(each.record.neighbours),
            "capabilities": dict(each.record.capabilities),
        }
        for each in found
    ]
