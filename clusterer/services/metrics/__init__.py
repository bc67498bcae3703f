"""Prometheus metrics of our processes: each scrape over HTTP collects them."""

from clusterer.services.metrics.cluster import ClusterCollector
from clusterer.services.metrics.delivery import DeliveryCollector
from clusterer.services.metrics.http import serving
from clusterer.services.metrics.instance import InstanceCollector, PostCollector
from clusterer.services.metrics.jobs import JobMetrics, TickMetrics

__all__ = [
    "ClusterCollector",
    "DeliveryCollector",
    "InstanceCollector",
    "JobMetrics",
    "PostCollector",
    "TickMetrics",
    "serving",
]
