"""All private attributes of RQ in use; tests/unit/test_private_attributes.py lists them.

RQ has no public way to change its records of the end of a job, or its handling of a lost connection
for commands. The hooks here have public names, so that no other file depends on the private names.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

from redis.client import PubSub, PubSubWorkerThread
from rq import SimpleWorker
from rq.executions import Execution
from rq.job import Job
from rq.queue import Queue
from rq.utils import now

ExcInfo = tuple[type[BaseException] | None, BaseException | None, TracebackType | None]


class Hooks(SimpleWorker):
    """RQ's worker; subclasses override the public methods."""

    def note_stop_request(self) -> None:
        """Note the time: RQ ignores a second request that comes within a second."""
        self._shutdown_requested_date = now()

    def finalize_success(
        self, job: Job, queue: Queue, execution: Execution, return_value: Any
    ) -> None:
        """Write to Redis that the job succeeded."""
        super()._finalize_success(job, queue, execution, return_value)

    def finalize_failure(
        self, job: Job, queue: Queue, execution: Execution, exc_info: ExcInfo
    ) -> None:
        """Write to Redis that the job failed."""
        super()._finalize_failure(job, queue, execution, exc_info)

    def commands_failed(self, error: Exception, listener: PubSubWorkerThread) -> None:
        """Handle an ``error`` of the thread ``listener``, which listens for RQ's commands."""
        raise NotImplementedError

    def _finalize_success(
        self, job: Job, queue: Queue, execution: Execution, return_value: Any
    ) -> None:
        self.finalize_success(job, queue, execution, return_value)

    def _finalize_failure(
        self, job: Job, queue: Queue, execution: Execution, exc_info: ExcInfo
    ) -> None:
        self.finalize_failure(job, queue, execution, exc_info)

    def _pubsub_exception_handler(
        self, exc: Exception, pubsub: PubSub, pubsub_thread: PubSubWorkerThread
    ) -> None:
        self.commands_failed(exc, pubsub_thread)
