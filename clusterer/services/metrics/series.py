"""The time series per node: their labels, and the bounds of their number.

Prometheus keeps each series, and a scrape has all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clusterer.membership import Node
    from clusterer.services.status.totals import ToNode
    from clusterer.services.status.traffic import Traffic
    from clusterer.store.audit import AuditEvent

NODE = ("cluster", "protocol", "machine_id")
"""Labels of a node."""

PAIR = ("sender", *NODE)
"""Labels of a pair of sender and node."""

ALL_SENDERS = "all"
"""The label ``sender`` of a node's sums."""

MOST_PAIRS = 100
"""Pairs of sender and node that get time series of their own."""

MOST_WHOLE = 200
"""Nodes that also get the time series whose value is nearly always 0, and fine histograms."""

MOST_PATHS = 20
"""Paths to a node that get a time series each."""


def node_labels(item: Node | Traffic | ToNode | AuditEvent) -> tuple[str, str, str]:
    """Return the values of the labels `NODE` for the node that ``item`` is about."""
    return str(item.cluster_id), item.protocol, str(item.machine_id)
