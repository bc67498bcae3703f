"""RQ's side of the delivery, maintenance and database jobs: the job functions and their worker.

Start a worker with ``python -m workers delivery|maintenance|database``, or with RQ's own command,
settings then coming from ``CLUSTERER_*`` variables as well (one queue per worker)::

    rq worker -w workers.Worker --job-class clusterer.jobs.Job \
        --queue-class clusterer.jobs.Queue --serializer json \
        --url redis://localhost:6379/0 clusterer-delivery
"""

from workers.functions import (
    check_timeouts,
    deliver,
    probe,
    reach,
    record_history,
    sweep,
    sync,
)
from workers.worker import Worker

__all__ = [
    "Worker",
    "check_timeouts",
    "deliver",
    "probe",
    "reach",
    "record_history",
    "sweep",
    "sync",
]
