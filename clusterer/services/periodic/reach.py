"""Finds the nodes whose BIN port this host can reach; as a job for the hosts of the workers."""

from __future__ import annotations

import socket
from typing import Any

from clusterer.ids import PROTO_BIN
from clusterer.membership import Node, State
from clusterer.services.context import Context
from clusterer.services.periodic.probe import ping_all

TIMEOUT_S = 1.0
"""Time that the connections to all nodes take together, at most."""


def wanted(context: Context) -> list[Node]:
    """Return the nodes that must answer: all except those that an operator took down."""
    return [
        node
        for key, view in context.nodes.views().items()
        for node in view.nodes.values()
        if key.protocol == PROTO_BIN and node.state is not State.DOWN
    ]


def name_of(node: Node) -> str:
    """Return ``cluster/machine_id``."""
    return f"{node.cluster_id}/{node.machine_id}"


def run(context: Context) -> dict[str, Any]:
    """Connect to all nodes at once; return ``host``, ``tried`` (number of nodes) and ``errors``.

    ``errors``: ``cluster/machine_id`` → error of the connection. Raises `StateUnavailable`.
    """
    nodes = wanted(context)
    errors = ping_all(nodes, TIMEOUT_S)
    return {
        "host": socket.gethostname(),
        "tried": len(nodes),
        "errors": {
            f"{key.cluster_id}/{machine_id}": text for (key, machine_id), text in errors.items()
        },
    }
