"""Completes the records that RQ writes before and after a job, once Redis is back.

RQ takes an error of its own writes for an error of the job: a job that has succeeded would count as
failed, with a traceback, if Redis went away at that moment.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import redis
from rq.executions import Execution
from rq.job import Job as RqJob
from rq.queue import Queue as RqQueue

from clusterer.endpoint import is_away
from clusterer.jobs import is_wrong_type, move_job_aside
from workers.rq_private import ExcInfo
from workers.stopping import Stoppable

_COUNTS = ("successful_job_count", "failed_job_count", "total_working_time")
"""Fields of a worker's hash that RQ increments when a job ends."""


class Bookkeeping(Stoppable):
    """The part of a worker that keeps RQ's records of a job complete."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._unwritten: Callable[[], object] | None = None
        """Completes the records of the latest job; None if they are, or while the job runs."""

    def complete_records(self) -> None:
        """Write the missing records of the latest job; run the job if it could not begin.

        Raises redis-py's errors.
        """
        if self._unwritten is not None:
            self._unwritten()

    def perform_job(self, job: RqJob, queue: RqQueue, execution: Execution) -> bool:
        """Run ``job``; return whether it succeeded. Raises redis-py's errors if Redis is away."""
        self._unwritten = partial(self._begin_again, job, queue, execution)
        return super().perform_job(job, queue, execution)

    def prepare_job_execution(
        self, job: RqJob, remove_from_intermediate_queue: bool = False
    ) -> None:
        super().prepare_job_execution(job, remove_from_intermediate_queue)
        self._unwritten = None

    def finalize_success(
        self, job: RqJob, queue: RqQueue, execution: Execution, return_value: Any
    ) -> None:
        self._unwritten = partial(self._end_again, job, queue, execution, return_value)
        try:
            super().finalize_success(job, queue, execution, return_value)
        except redis.ResponseError as error:
            if not self._mended(error, job, queue):
                raise
            super().finalize_success(job, queue, execution, return_value)
        self._unwritten = None

    def finalize_failure(
        self, job: RqJob, queue: RqQueue, execution: Execution, exc_info: ExcInfo
    ) -> None:
        error = exc_info[1]
        if self._unwritten is not None and isinstance(error, redis.RedisError) and is_away(error):
            raise error
        self._unwritten = None
        super().finalize_failure(job, queue, execution, exc_info)

    def _mended(self, error: redis.ResponseError, job: RqJob, queue: RqQueue) -> bool:
        """Repair the key that keeps Redis from recording the end of ``job``; False without one."""
        if is_wrong_type(error):
            return move_job_aside(job, queue) > 0
        return "hash value is not" in str(error) and self.connection.hdel(self.key, *_COUNTS) > 0

    def _begin_again(self, job: RqJob, queue: RqQueue, execution: Execution) -> None:
        if self._is_known(job, execution):
            self.perform_job(job, queue, execution)

    def _end_again(
        self, job: RqJob, queue: RqQueue, execution: Execution, return_value: Any
    ) -> None:
        if not self._is_known(job, execution):
            return
        try:
            self.finalize_success(job, queue, execution, return_value)
        except Exception as error:  # noqa: BLE001 - RQ takes all of these for a failure
            failure = type(error), error, error.__traceback__
            self.finalize_failure(job, queue, execution, failure)

    def _is_known(self, job: RqJob, execution: Execution) -> bool:
        """Whether Redis still has the job; without it there are no records to complete."""
        known = bool(self.connection.exists(job.key))
        if known:
            self.executions[execution.id] = execution
        else:
            self._unwritten = None
        return known
