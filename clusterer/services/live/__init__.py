"""The live views: snapshots of all clusters, and the rows and changes that two of them give."""

from clusterer.services.live.alarms import Alarm, Severity, alarms
from clusterer.services.live.node_events import NodeEvents, changes
from clusterer.services.live.node_rows import ClusterRows, LastSeen, Row, rows
from clusterer.services.live.receipts import Receipt
from clusterer.services.live.snapshot import Reader, Snapshot

__all__ = [
    "Alarm",
    "ClusterRows",
    "LastSeen",
    "NodeEvents",
    "Reader",
    "Receipt",
    "Row",
    "Severity",
    "Snapshot",
    "alarms",
    "changes",
    "rows",
]
