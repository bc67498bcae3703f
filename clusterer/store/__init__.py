"""State in Redis: nodes, logs of packets, leases, receipts. Python decides, Lua commits."""

from clusterer.membership.views import ClusterKey, ClusterView
from clusterer.store.client import connect, translated
from clusterer.store.directory import Directory
from clusterer.store.node_change import Cause
from clusterer.store.nodes import NodeStore

__all__ = [
    "Cause",
    "ClusterKey",
    "ClusterView",
    "Directory",
    "NodeStore",
    "connect",
    "translated",
]
