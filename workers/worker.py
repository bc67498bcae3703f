"""The RQ worker: one queue, jobs in its own process, survives Redis, ends when asked to."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType
from typing import Any

import redis
from redis.client import PubSub, PubSubWorkerThread
from rq.defaults import DEFAULT_LOGGING_DATE_FORMAT, DEFAULT_LOGGING_FORMAT
from rq.exceptions import StopRequested
from rq.executions import Execution
from rq.job import Job as RqJob
from rq.queue import Queue as RqQueue
from rq.serializers import JSONSerializer
from rq.utils import now
from rq.worker import WorkerStatus

from clusterer.endpoint import follow, remedy, trouble
from clusterer.jobs import (
    HEARTBEAT_TTL_S,
    OURS,
    Job,
    Queue,
    StopFlag,
    handled_signals,
    is_wrong_type,
    move_aside,
)
from clusterer.rounds import Rounds
from workers import runtime
from workers.junk_log import JunkLog
from workers.maintenance import Maintenance

WORKER_TTL_S = 15
"""RQ forgets a killed worker a minute after this."""
MAINTENANCE_INTERVAL_S = 60

DEQUEUE_TIMEOUT_S = 2
"""How long one wait for a job lasts; bounds how late a frozen connection is noticed."""
CONNECTION_TIMEOUT_S = DEQUEUE_TIMEOUT_S + 2
LOOK_S = 5.0
"""How often a worker looks whether Redis still knows it."""
RETRY_S = 0.5
"""Pause between attempts while Redis is away."""
GRACE_S = 4.0
"""What a stop request leaves a job to end; after it the process is gone in any case."""

logger = logging.getLogger(__name__)


class Worker(Maintenance):
    """Runs the jobs of exactly one queue, one after the other, in this process.

    In this process, because delivery keeps sockets from job to job; of one queue, because
    only then does RQ not lose a job whose worker dies right after taking it. Whatever classes,
    serializer and TTLs it is given, it uses our own.
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
        follow(self.connection)  # RQ's own command makes its client itself
        self.worker_ttl = WORKER_TTL_S
        self.maintenance_interval = MAINTENANCE_INTERVAL_S
        self.log_job_description = False
        self._left = threading.Event()
        self._waiting = False
        self._away = False
        self._bootstrapped = self._registered = False
        self._looked_at = 0.0
        self._junk_log = JunkLog(names[0] if names else "")
        self._running: tuple[RqJob, Execution] | None = None
        self._rounds, self._commands = Rounds("worker"), Rounds("worker commands")

    @property
    def dequeue_timeout(self) -> int:
        """Ours; RQ would compute it from the worker's TTL."""
        return DEQUEUE_TIMEOUT_S

    @property
    def connection_timeout(self) -> int:
        """Ours; RQ would compute it from the worker's TTL."""
        return CONNECTION_TIMEOUT_S

    @property
    def stop(self) -> StopFlag:
        """The process's stop flag, which running jobs watch."""
        return runtime.current().stop

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

        ``max_jobs`` and ``max_idle_time`` (seconds) end it as in RQ; a strategy for several
        queues means nothing here. Redis being away is waited out, however long. Returns
        whether any job ran.
        """
        if with_scheduler:
            raise ValueError("periodic jobs come from `python -m scheduler`, not from RQ's own")
        runtime.current().heartbeat = self.beat
        for number in handled_signals():
            signal.signal(number, self.request_stop)
        threading.Thread(target=self._end_in_time, name="end-in-time", daemon=True).start()
        done, idle_since = 0, time.monotonic()
        try:
            while not self.stop.is_set() and (max_jobs is None or done < max_jobs):
                ran = self._turn(burst, (logging_level, date_format, log_format))
                if ran:
                    done, idle_since = done + 1, time.monotonic()
                elif ran is False and (burst or _over(max_idle_time, idle_since)):
                    break
        finally:
            self._report_junk()
            self._junk_log.flush()
            self._leave()
        return done > 0

    def _turn(self, burst: bool, log_options: tuple[str | None, str, str]) -> bool | None:
        """Wait for one job and run it: True; False if there was none; None for junk or trouble."""
        runtime.current().progressed()
        try:
            self._report_junk()
            self._register(log_options)
            self.check_for_suspension(burst)
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

    def _register(self, log_options: tuple[str | None, str, str]) -> None:
        """Appear in ``rq info``; again if Redis has lost its data meanwhile."""
        if self._registered and not self._forgotten():
            return
        # RQ lists a queue, and the workers of it, only once something was enqueued.
        self.connection.sadd(Queue.redis_queues_keys, *self.queue_keys())
        if self.birth_date is not None:
            self.connection.delete(self.key)
        if not self._bootstrapped:
            self.bootstrap(*log_options)
            self._bootstrapped = True
        else:
            self.register_birth()  # type: ignore[no-untyped-call]
        self.set_state(WorkerStatus.IDLE)
        self._registered = True

    def _forgotten(self) -> bool:
        """Whether Redis lost what it knew of this worker; asks now and then only."""
        if time.monotonic() - self._looked_at < LOOK_S:
            return False
        self._looked_at = time.monotonic()
        if self.connection.hexists(self.key, "birth"):
            return False
        logger.warning("worker %s: Redis had forgotten it: registered again", self.name)
        return True

    def _redis_is_away(self, error: redis.RedisError) -> None:
        """Redis is gone, or refuses what we need: a replica, full, without a disk, forbidden."""
        if not self._away:
            text = trouble(runtime.current().settings, error)
            logger.warning("worker %s: waiting for %s: %s", self.name, text, remedy(error))
        self._away = True
        self._registered = False

    def _run_next(self, burst: bool) -> bool | None:
        queue = self.queues[0]
        assert isinstance(queue, Queue)  # noqa: S101 - the constructor made it
        job_id = self._wait_for_job(queue, None if burst else DEQUEUE_TIMEOUT_S)
        if self._away:
            logger.warning("worker %s: Redis is back", self.name)
            self._away = False
        if job_id is None:
            return False
        job = queue.load(job_id)
        if job is None:
            return None
        job.redis_server_version = self.get_redis_server_version()  # type: ignore[no-untyped-call]
        self.execute_job(job, queue)
        return True

    def _report_junk(self) -> None:
        for queue in self.queues:
            assert isinstance(queue, Queue)  # noqa: S101 - the constructor made it
            count, latest = queue.sifter.tally.take()
            runtime.current().junk_found(count)
            self._junk_log.note(count, latest, time.monotonic())

    def _wait_for_job(self, queue: Queue, timeout_s: int | None) -> str | None:
        self._waiting = True
        try:
            return None if self.stop.is_set() else queue.pop(timeout_s)
        finally:
            self._waiting = False

    def execute_job(self, job: RqJob, queue: RqQueue) -> None:
        """Run ``job`` here and now, as RQ's SimpleWorker does."""
        execution = self.prepare_execution(job)
        self._running = job, execution
        began, succeeded = time.monotonic(), True
        try:
            succeeded = self.perform_job(job, queue, execution)
        finally:  # what does not return was stopped, or Redis went away: no fault of the job's
            self._running = None
            took_s = time.monotonic() - began
            runtime.current().job_ended(job.func_name or "", took_s, succeeded=succeeded)
        self.set_state(WorkerStatus.IDLE)

    # ----------------------------------------------------------------- signs of life

    def serialize(self) -> dict[str, Any]:
        """Return the worker's hash; one field more than RQ's says that it is ours."""
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

    # ------------------------------------------------------------------------ ending

    def request_stop(self, signum: int, frame: FrameType | None) -> None:
        """Signal handler: let the running job end; touches neither Redis nor locks."""
        self.stop.set()
        self._stop_requested = True
        self._shutdown_requested_date = now()
        signal.signal(signal.SIGINT, self.request_force_stop)
        signal.signal(signal.SIGTERM, self.request_force_stop)
        if self._waiting:
            raise StopRequested

    def request_force_stop(self, signum: int, frame: FrameType | None) -> None:
        """Signal handler of a second request: interrupt the running job."""
        self.stop.set()
        super().request_force_stop(signum, frame)

    def _end_in_time(self) -> None:
        self.stop.wait()
        if not self._left.wait(GRACE_S):
            logger.error("worker %s: job did not end in %g s, leaving it", self.name, GRACE_S)
            os._exit(1)

    def _leave(self) -> None:
        runtime.current().close()
        with suppress(redis.RedisError):
            self.register_death()  # type: ignore[no-untyped-call]
        self._left.set()
        with suppress(redis.RedisError):
            self.unsubscribe()

    def unsubscribe(self) -> None:
        """End the thread that listens for RQ's commands; RQ's order costs a second at times."""
        listener: PubSubWorkerThread | None = self.pubsub_thread
        if self.pubsub is not None and listener is not None:
            listener.stop()
            self.pubsub.unsubscribe()  # type: ignore[no-untyped-call]
            listener.join(timeout=RETRY_S)

    def _pubsub_exception_handler(
        self, exc: Exception, pubsub: PubSub, pubsub_thread: PubSubWorkerThread
    ) -> None:
        """Keep listening for RQ's commands across outages and undecodable commands."""
        if not isinstance(exc, redis.RedisError | OSError):
            self._commands.failed(exc)
        if self._left.wait(RETRY_S):
            pubsub_thread.stop()


def _names(queues: str | RqQueue | Sequence[str] | Sequence[RqQueue]) -> list[str]:
    listed: Sequence[str | RqQueue] = [queues] if isinstance(queues, str | RqQueue) else queues
    return [item if isinstance(item, str) else item.name for item in listed]


def _over(limit_s: float | None, since: float) -> bool:
    return limit_s is not None and time.monotonic() - since >= limit_s
