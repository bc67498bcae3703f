"""The ratelimit module: pipes shared by a cluster, wire-compatible with OpenSIPS 2.2's."""

from clusterer.modules.ratelimit.algorithms import Algorithm
from clusterer.modules.ratelimit.limiter import RateLimit
from clusterer.modules.ratelimit.measuring import CpuLoad, QueuedBytes
from clusterer.modules.ratelimit.pipe import PipeView
from clusterer.modules.ratelimit.replication import Stats
from clusterer.modules.ratelimit.table import Limits

__all__ = ["Algorithm", "CpuLoad", "Limits", "PipeView", "QueuedBytes", "RateLimit", "Stats"]
