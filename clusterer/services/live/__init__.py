"""What happens now: snapshots of everything, and what two of them say about each node."""

from clusterer.services.live.node_events import NodeEvents, changes
from clusterer.services.live.node_rows import ClusterRows, LastSeen, Row, rows
from clusterer.services.live.snapshot import Reader, Receipt, Snapshot

__all__ = [
    "ClusterRows",
    "LastSeen",
    "NodeEvents",
    "Reader",
    "Receipt",
    "Row",
    "Snapshot",
    "changes",
    "rows",
]
