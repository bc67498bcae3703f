"""The RQ worker: one queue, jobs in its own process, continues after outages, ends on request."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from math import inf
from typing import Any

import redis
from rq.defaults import DEFAULT_LOGGING_DATE_FORMAT, DEFAULT_LOGGING_FORMAT
from rq.exceptions import StopRequested
from rq.executions import Execution
from rq.job import Job as RqJob
from rq.queue import Queue as RqQueue
from rq.serializers import JSONSerializer
from rq.worker import WorkerStatus

from clusterer.endpoint import awaited, follow
from clusterer.jobs import (
    HEARTBEAT_TTL_S,
    OURS,
    SUSPENDED,
    Job,
    Queue,
    Suspension,
    begin_delivery,
    is_wrong_type,
    move_aside,
    move_job_aside,
)
from clusterer.runtime.rounds import Rounds
from workers import runtime
from workers.bookkeeping import Bookkeeping
from workers.log_lines import JunkLog, SuspensionLog
from workers.stopping import RETRY_S

WORKER_TTL_S = 15
"""RQ forgets a killed worker a minute after this."""
MAINTENANCE_INTERVAL_S = 60

DEQUEUE_TIMEOUT_S = 2
"""Length of one wait for a job; bounds the time until the worker notices a frozen connection."""
CONNECTION_TIMEOUT_S = DEQUEUE_TIMEOUT_S + 2
LOOK_S = 5.0
"""Interval at which a worker looks for its registration in Redis."""
SUSPENSION_LOOK_S = 1.0
"""Interval at which a suspended worker checks for the end of the suspension."""

logger = logging.getLogger(__name__)


class Worker(Bookkeeping):
    """Runs the jobs of exactly one queue, one after the other, in this process.

    In this process, because delivery keeps sockets from job to job. Of one queue, because RQ can
    lose a job of several queues if the worker dies right after it took the job. The worker uses
    our own classes, serializer and TTLs, and ignores those of the arguments.
    """

    def __init__(
        self,
        queues: str | RqQueue | Sequence[str] | Sequence[RqQueue],
        name: str | None = None,
        **options: Any,
    ) -> None:
        names = _names(queues)
        if len(names) > 1:
            raise ValueError(f"one queue per worker, not {len(names)}: {', '.join(names)}")
        options |= {"job_class": Job, "queue_class": Queue, "serializer": JSONSerializer}
        super().__init__(names, name, **options)
        follow(self.connection, runtime.current().settings)  # RQ's own command makes its client
        self.worker_ttl = WORKER_TTL_S
        self.maintenance_interval = MAINTENANCE_INTERVAL_S
        self.log_job_description = False
        self._away = False
        self._bootstrapped = self._registered = False
        self._looked_at = 0.0
        self._junk = 0
        self._junk_log = JunkLog(names[0] if names else "")
        self._suspension_log = SuspensionLog()
        self._running: tuple[RqJob, Execution] | None = None
        self._rounds = Rounds("worker")
        self._log_options: tuple[str | None, str, str] = (None, "", "")

    @property
    def dequeue_timeout(self) -> int:
        """Ours; RQ would compute it from the worker's TTL."""
        return DEQUEUE_TIMEOUT_S

    @property
    def connection_timeout(self) -> int:
        """Ours; RQ would compute it from the worker's TTL."""
        return CONNECTION_TIMEOUT_S

    # ---------------------------------------------------------------------- the loop

    def work(  # noqa: PLR0917 - RQ's signature
        self,
        burst: bool = False,
        logging_level: str | None = None,
        date_format: str = DEFAULT_LOGGING_DATE_FORMAT,
        log_format: str = DEFAULT_LOGGING_FORMAT,
        max_jobs: int | None = None,
        max_idle_time: int | None = None,
        with_scheduler: bool = False,
        dequeue_strategy: Any = None,
    ) -> bool:
        """Run jobs until stopped; with ``burst`` until the queue is empty.

        ``max_jobs`` and ``max_idle_time`` (seconds) end the worker as in RQ; the worker ignores a
        strategy for several queues. While Redis is away the worker waits. Returns whether any job
        ran.
        """
        if with_scheduler:
            raise ValueError("periodic jobs come from `python -m scheduler`, not from RQ's own")
        runtime.current().heartbeat = self.beat
        self._heed_signals()
        self._log_options = logging_level, date_format, log_format
        try:
            with runtime.current().probing(self.queues[0].name):
                return self._work(burst, max_jobs, max_idle_time)
        finally:
            self._report_junk(ends=True)
            self._leave()

    def _work(self, burst: bool, max_jobs: int | None, max_idle_time: int | None) -> bool:
        """Do what `work` says; return whether any job ran."""
        done, idle_since = 0, time.monotonic()
        while not self.stop.is_set() and (max_jobs is None or done < max_jobs):
            ran = self._turn(burst)
            if ran:
                done, idle_since = done + 1, time.monotonic()
            elif ran is False and (burst or _over(max_idle_time, idle_since)):
                break
        return done > 0

    def _turn(self, burst: bool) -> bool | None:
        """Wait for one job and run it: True; False without a job; None after junk or an error."""
        runtime.current().progressed()
        try:
            self._report_junk()
            self._register()
            self.complete_records()
            if self._suspended(burst):
                runtime.current().pause()
                self.stop.wait(SUSPENSION_LOOK_S)
                return None
            self._clean_up()
            return self._run_next(burst)
        except StopRequested:
            return False
        except redis.RedisError as error:
            if is_wrong_type(error) and move_aside(self.queues[0]):
                return None
            self._redis_is_away(error)
        except Exception as error:
            if not self._bootstrapped:
                raise
            self._rounds.failed(error)
        self.executions.clear()
        self.stop.wait(RETRY_S)
        return None

    def _register(self) -> None:
        """Register for ``rq info``; again if Redis has lost the registration."""
        if self._registered and not self._forgotten():
            return
        # RQ lists a queue, and its workers, only after the first job of the queue.
        self.connection.sadd(Queue.redis_queues_keys, *self.queue_keys())
        if self.birth_date is not None:
            self.connection.delete(self.key)
        if not self._bootstrapped:
            self.bootstrap(*self._log_options)
            self._bootstrapped = True
        else:
            self.register_birth()  # type: ignore[no-untyped-call]
        self.set_state(WorkerStatus.IDLE)
        self._registered = True

    def _forgotten(self) -> bool:
        """Whether the registration of this worker is missing in Redis; looks every `LOOK_S`."""
        if time.monotonic() - self._looked_at < LOOK_S:
            return False
        self._looked_at = time.monotonic()
        if self.connection.hexists(self.key, "birth"):
            return False
        logger.warning("worker %s: registration missing in Redis, registered again", self.name)
        return True

    def _redis_is_away(self, error: redis.RedisError) -> None:
        """Log that Redis is away or refuses: a replica, full, without a disk, forbidden."""
        if not self._away:
            text = awaited(runtime.current().settings, error)
            logger.warning("worker %s: waiting for %s", self.name, text)
        self._away = True
        self._registered = False

    def _redis_is_back(self) -> None:
        if self._away:
            logger.warning("worker %s: Redis is back", self.name)
            self._away = False

    def _suspended(self, burst: bool) -> bool:
        """Send the heartbeat; return whether RQ is suspended, which ends a burst."""
        with self.connection.pipeline() as pipe:
            self.heartbeat(pipeline=pipe)
            pipe.pttl(SUSPENDED)
            suspension = Suspension.of(pipe.execute()[-1])
        self._suspension_log.note(self.name, suspension, runtime.current().settings)
        state = WorkerStatus.IDLE if suspension is None else WorkerStatus.SUSPENDED
        if state != self.get_state():
            self.set_state(state)
        if suspension is None:
            return False
        self._redis_is_back()
        if burst:
            raise StopRequested
        return True

    def _run_next(self, burst: bool) -> bool | None:
        queue = self.queues[0]
        assert isinstance(queue, Queue)  # noqa: S101 - the constructor made it
        job_id = None if runtime.current().goes_on else self._wait_for_job(queue, burst=burst)
        self._redis_is_back()
        if runtime.current().goes_on:
            # Another worker would take a job from the queue, and the senders with it.
            job: RqJob | None = begin_delivery(queue)
        elif job_id is None:
            return False
        else:
            job = queue.load(job_id)
        if job is None:
            return None
        move_job_aside(job, queue)
        job.redis_server_version = self.get_redis_server_version()  # type: ignore[no-untyped-call]
        self.execute_job(job, queue)
        return True

    def _report_junk(self, *, ends: bool = False) -> None:
        """Count junk jobs for the metrics; log them once a minute, and when the worker ends."""
        for queue in self.queues:
            assert isinstance(queue, Queue)  # noqa: S101 - the constructor made it
            junk = queue.junk_filter.junk
            runtime.current().junk_found(junk - self._junk)
            self._junk = junk
            latest = queue.junk_filter.latest
            self._junk_log.note(junk, latest, inf if ends else time.monotonic())

    def _wait_for_job(self, queue: Queue, *, burst: bool) -> str | None:
        self._waiting = True
        try:
            return None if self.stop.is_set() else queue.pop(None if burst else DEQUEUE_TIMEOUT_S)
        finally:
            self._waiting = False

    def execute_job(self, job: RqJob, queue: RqQueue) -> None:
        """Run ``job`` here and now, as RQ's SimpleWorker does."""
        execution = self.prepare_execution(job)
        self._running = job, execution
        began, succeeded = time.monotonic(), True
        try:
            succeeded = self.perform_job(job, queue, execution)
        finally:  # without a result the job was stopped, or Redis went away: the job did not fail
            self._running = None
            took_s = time.monotonic() - began
            runtime.current().job_ended(job.func_name or "", took_s, succeeded=succeeded)
        self.set_state(WorkerStatus.IDLE)

    # --------------------------------------------------------------------- heartbeats

    def serialize(self) -> dict[str, Any]:
        """Return the worker's hash; one field more than RQ's marks clusterer's workers."""
        return {**super().serialize(), OURS: 1}

    def get_heartbeat_ttl(self, job: RqJob, working_time: float = 0.0) -> int:
        """Seconds after which RQ may count ``job`` as lost."""
        if job.timeout is None or job.timeout <= 0:
            return HEARTBEAT_TTL_S
        return int(job.timeout) + HEARTBEAT_TTL_S

    def beat(self) -> None:
        """Tell RQ that the running job is alive; for jobs that run long. Never raises."""
        runtime.current().progressed()
        if self._running is not None:
            with suppress(redis.RedisError):
                self.maintain_heartbeats(*self._running)


def _names(queues: str | RqQueue | Sequence[str] | Sequence[RqQueue]) -> list[str]:
    listed: Sequence[str | RqQueue] = [queues] if isinstance(queues, str | RqQueue) else queues
    return [item if isinstance(item, str) else item.name for item in listed]


def _over(limit_s: float | None, since: float) -> bool:
    return limit_s is not None and time.monotonic() - since >= limit_s
