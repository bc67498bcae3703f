"""The periodic jobs and the process that enqueues them: ``python -m scheduler``."""

from scheduler.plan import PeriodicJob, periodic_jobs
from scheduler.scheduler import Scheduler

__all__ = ["PeriodicJob", "Scheduler", "periodic_jobs"]
