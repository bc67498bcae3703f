"""Which senders this host may deliver for, and from which address."""

from __future__ import annotations

from collections.abc import Iterable

from clusterer.delivery.roster import Views
from clusterer.ids import PROTO_BIN
from clusterer.membership import Node
from clusterer.membership.views import ClusterKey
from clusterer.runtime.routes import is_local


def source_of(sender: int, key: ClusterKey, views: Views) -> str | None:
    """Return the IP of the sender's own row in a cluster, None if it has no row there."""
    view = views.get(key)
    node = view.nodes.get(sender) if view else None
    return node.host if node else None


def own_rows(sender: int, views: Views) -> list[Node]:
    """Return all the sender's BIN rows."""
    return [
        view.nodes[sender]
        for key, view in views.items()
        if key.protocol == PROTO_BIN and sender in view.nodes
    ]


def all_local(hosts: Iterable[str]) -> bool:
    """Whether every one of ``hosts`` is an address of this machine (or network namespace)."""
    return all(map(is_local, hosts))
