"""Prometheus metrics of our processes: collected when they are asked for, served over HTTP."""

from clusterer.services.metrics.cluster import ClusterCollector
from clusterer.services.metrics.delivery import DeliveryCollector
from clusterer.services.metrics.instance import InstanceCollector
from clusterer.services.metrics.jobs import JobMetrics
from clusterer.services.metrics.server import serving
from clusterer.services.metrics.ticks import TickMetrics

__all__ = [
    "ClusterCollector",
    "DeliveryCollector",
    "InstanceCollector",
    "JobMetrics",
    "TickMetrics",
    "serving",
]
