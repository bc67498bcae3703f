"""Prometheus metrics of our processes: collected when they are asked for, served over HTTP."""

from clusterer.services.metrics.cluster import ClusterCollector
from clusterer.services.metrics.delivery import DeliveryCollector
from clusterer.services.metrics.http import serving
from clusterer.services.metrics.instance import InstanceCollector
from clusterer.services.metrics.jobs import JobMetrics, TickMetrics

__all__ = [
    "ClusterCollector",
    "DeliveryCollector",
    "InstanceCollector",
    "JobMetrics",
    "TickMetrics",
    "serving",
]
