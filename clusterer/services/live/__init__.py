"""The live views: snapshots of all clusters, and the rows and changes that two of them give."""

from clusterer.services.live.alarms import Alarm, Severity, alarms
from clusterer.services.live.last_seen import LastSeen
from clusterer.services.live.node_events import NodeEvents, changes
from clusterer.services.live.node_rows import ClusterRows, Row, rows
from clusterer.services.live.snapshot import Reader, Snapshot

__all__ = [
    "Alarm",
    "ClusterRows",
    "LastSeen",
    "NodeEvents",
    "Reader",
    "Row",
    "Severity",
    "Snapshot",
    "alarms",
    "changes",
    "rows",
]
