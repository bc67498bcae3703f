"""State in Redis: nodes, logs of packets, leases, receipts. Python decides, Lua commits."""

from clusterer.store.changes import Cause
from clusterer.store.client import connect, translated
from clusterer.store.directory import Directory
from clusterer.store.nodes import NodeStore
from clusterer.store.views import ClusterKey, ClusterView

__all__ = [
    "Cause",
    "ClusterKey",
    "ClusterView",
    "Directory",
    "NodeStore",
    "connect",
    "translated",
]
