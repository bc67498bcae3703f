"""Everything the library needs of RQ: safe job and queue classes, and delivery jobs.

Jobs are enqueued by dotted name; nothing here imports the code that runs them.
"""

from clusterer.jobs.classes import Job, JobRefused, Queue
from clusterer.jobs.client import SUSPENDED, Suspension, connect, resume_command
from clusterer.jobs.junk import JunkReport, JunkStore
from clusterer.jobs.keys import JOB_FUNCTIONS, OURS
from clusterer.jobs.queues import (
    HEARTBEAT_TTL_S,
    begin_delivery,
    delete_queue,
    enqueue_delivery,
    has_worker,
    queue,
    queued,
    taken_lately,
    workers_of,
)
from clusterer.jobs.wrong_types import is_wrong_type, move_aside, move_job_aside, move_keys_aside

__all__ = [
    "HEARTBEAT_TTL_S",
    "JOB_FUNCTIONS",
    "OURS",
    "SUSPENDED",
    "Job",
    "JobRefused",
    "JunkReport",
    "JunkStore",
    "Queue",
    "Suspension",
    "begin_delivery",
    "connect",
    "delete_queue",
    "enqueue_delivery",
    "has_worker",
    "is_wrong_type",
    "move_aside",
    "move_job_aside",
    "move_keys_aside",
    "queue",
    "queued",
    "resume_command",
    "taken_lately",
    "workers_of",
]
