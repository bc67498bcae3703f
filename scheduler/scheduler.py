"""rq-scheduler without its faults: one active of many, also after outages and invalid jobs.

The tick of rq-scheduler can lose a job for good, enqueue a job twice or die. Here one transaction
enqueues the due jobs and schedules them again; Redis rejects the transaction if this scheduler has
lost the lock. Schedule and lock are keys of our own: other applications on the same Redis may use
rq-scheduler's keys.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import redis
import rq_scheduler
from redis.exceptions import LockError
from redis.lock import Lock

from clusterer.jobs import Job, Queue, is_wrong_type, keys, move_aside, move_keys_aside
from clusterer.runtime.rounds import Rounds
from clusterer.runtime.stop import StopFlag, handle_stop_signals
from scheduler.plan import PeriodicJob, Plan, make_plan

LOCK_TTL_S = 3.0
"""Life of the lock: another scheduler replaces a killed one after this time plus `STANDBY_S`."""
RENEW_S = 1.0
STANDBY_S = 0.5
"""Interval at which a scheduler that stands by tries to become active."""
POLL_S = 0.5
"""Longest pause between two looks of the active scheduler at the schedule."""
RETRY_S = 0.5
"""Pause between attempts while Redis is away."""
HEARTBEAT_S = 3.0
FAILURE_TTL_S = 3600
FOREVER = -1
NO_TTL = -1
"""Reply of PTTL for a key that never expires."""
STRANGERS_AT_ONCE = 100
MOST_REFUSED = 1000
CLEAN_S = 5.0
"""Interval at which the scheduler looks in rq-scheduler's own schedule for jobs that an earlier
version left, and least distance of their due time from now."""

logger = logging.getLogger(__name__)


class Scheduler(rq_scheduler.Scheduler):  # type: ignore[misc]  # untyped
    """Enqueues ``jobs`` periodically while it holds the lock.

    The keys are for our jobs only: the scheduler moves other due jobs to `refused_key`, unread.
    """

    job_class = Job
    queue_class = Queue
    redis_scheduler_namespace_prefix = keys.scheduler("")
    scheduler_key = "clusterer:scheduler"
    scheduler_lock_key = keys.LOCK
    scheduled_jobs_key = keys.SCHEDULED
    refused_key = keys.REFUSED
    shared_jobs_key = rq_scheduler.Scheduler.scheduled_jobs_key

    def __init__(
        self, connection: redis.Redis, jobs: Sequence[PeriodicJob], stop: StopFlag | None = None
    ) -> None:
        super().__init__(connection=connection, interval=POLL_S)
        self.jobs = tuple(jobs)
        self.stop = stop or StopFlag()
        self.active = False
        self._lock = Lock(
            connection, self.scheduler_lock_key, timeout=LOCK_TTL_S, thread_local=False
        )
        self._renewed_at = self._announced_at = -LOCK_TTL_S
        self._cleaned_at = -CLEAN_S
        self._away = self._standing_by = False
        self._rounds = Rounds("scheduler")
        self._planned: Mapping[str, float | None] = {}
        self.awaited: Callable[[redis.RedisError], str] = str
        """Names, in log lines, the Redis server, the error and what to do."""
        self.progressed: Callable[[], object] = lambda: None
        """The loop calls this function in each turn."""
        self.late: Callable[[float], object] = _ignore_lateness
        """The scheduler calls this function for each enqueued job, with the seconds of delay."""

    def run(self, burst: bool = False) -> None:
        """Work until `stop` is set, by SIGTERM, SIGINT or SIGHUP too; ``burst``: look once."""
        self._install_signal_handlers()
        try:
            while not self.stop.is_set():
                self.progressed()
                wait_s = self._turn()
                if burst:
                    break
                self.stop.wait(wait_s)
        finally:
            self._leave()

    def _turn(self) -> float:
        """Look once and survive every error; return the seconds until the next look."""
        try:
            self.heartbeat()
            wait_s = self.enqueue_jobs()
        except redis.RedisError as error:
            if is_wrong_type(error) and self._move_aside():
                return 0.0
            if not self._away:
                logger.warning("scheduler: waiting for %s", self.awaited(error))
            self._away = True
            self._renewed_at = -LOCK_TTL_S
            return RETRY_S
        except Exception as error:  # noqa: BLE001 - no value in Redis may end the scheduler
            self._rounds.failed(error)
            return RETRY_S
        if self._away:
            logger.warning("scheduler: Redis is back")
            self._away = False
        return wait_s

    def enqueue_jobs(self) -> float:
        """Enqueue the due jobs if this scheduler is active; return the seconds until the next call.

        The scheduler does not enqueue a job a second time while the job waits in its queue.
        """
        self.active = self.acquire_lock()
        if not self.active:
            return STANDBY_S
        now, plan, waiting, strangers = self._look()
        if (plan.due or strangers) and not self._commit(plan, waiting, strangers):
            return STANDBY_S
        self._clean_shared_schedule(now)
        for job, _ in plan.due:
            self.late(max(0.0, now - (self._planned.get(job.job_id) or now)))
        return min(max(plan.next_at - now, 0.0), POLL_S)

    def _look(self) -> tuple[float, Plan, set[str], dict[bytes, float]]:
        """Return time, plan, waiting jobs and unknown jobs that are due: one round trip."""
        ids = [job.job_id for job in self.jobs]
        with self.connection.pipeline(transaction=False) as pipe:
            pipe.time()
            pipe.zmscore(self.scheduled_jobs_key, ids)
            pipe.zrange(self.scheduled_jobs_key, 0, STRANGERS_AT_ONCE - 1, withscores=True)
            for job in self.jobs:
                pipe.lpos(self._queue_of(job).key, job.job_id)
            (seconds, micros), times, first, *positions = pipe.execute()
        now = seconds + micros / 1e6
        waiting = {i for i, position in zip(ids, positions, strict=True) if position is not None}
        strangers = {i: at for i, at in first if at <= now and i.decode("latin-1") not in ids}
        self._planned = dict(zip(ids, times, strict=True))
        return now, make_plan(self.jobs, self._planned, now), waiting, strangers

    def _commit(self, plan: Plan, waiting: set[str], strangers: dict[bytes, float]) -> bool:
        """Carry out the plan as one transaction; return False, without any change, if this
        scheduler has lost the lock.
        """
        with self.connection.pipeline() as pipe:
            pipe.watch(self.scheduler_lock_key)
            if pipe.get(self.scheduler_lock_key) != self._lock.local.token:
                return False
            pipe.multi()
            for job, again_at in plan.due:
                pipe.zadd(self.scheduled_jobs_key, {job.job_id: again_at})
                if job.job_id not in waiting:
                    self._enqueue(job, pipe)
            for stranger, at in strangers.items():
                self._remove(stranger, at, pipe)
            try:
                pipe.execute()
            except redis.WatchError:
                return False
        return True

    def _enqueue(self, job: PeriodicJob, pipe: Any) -> None:
        """Write the job as new: its hash may have expired, or hold values of another program.

        The job goes to the front of the queue, so that junk jobs do not delay it.
        """
        made = self._create_job(
            job.function,
            id=job.job_id,
            queue_name=job.queue,
            timeout=job.timeout_s,
            result_ttl=FOREVER,
            meta={"interval": job.interval_s},
            commit=False,
        )
        made.failure_ttl = FAILURE_TTL_S
        pipe.delete(made.key, made.dependents_key)
        self._queue_of(job).enqueue_job(made, pipeline=pipe, at_front=True)

    def _remove(self, job_id: bytes, at: float, pipe: Any) -> None:
        pipe.zrem(self.scheduled_jobs_key, job_id)
        if job_id.decode("latin-1") not in keys.PERIODIC_IDS:
            logger.error("scheduler: unknown job %r moved to %s", job_id, self.refused_key)
            pipe.zadd(self.refused_key, {job_id: at})
            pipe.zremrangebyrank(self.refused_key, 0, -1 - MOST_REFUSED)

    def _clean_shared_schedule(self, now: float) -> None:
        """Remove the jobs that earlier versions put into rq-scheduler's own schedule.

        Not while such a version still runs: the version would schedule the job again, due at once.
        """
        if time.monotonic() - self._cleaned_at < CLEAN_S:
            return
        self._cleaned_at = time.monotonic()
        ids = sorted(keys.PERIODIC_IDS)
        with suppress(redis.ResponseError):  # the key is not ours: its type may be any
            times = self.connection.zmscore(self.shared_jobs_key, ids)
            found = zip(ids, times, strict=True)
            left = [i for i, at in found if at is not None and abs(now - at) > CLEAN_S]
            if left:
                self.connection.zrem(self.shared_jobs_key, *left)

    def _queue_of(self, job: PeriodicJob) -> Queue:
        return Queue(job.queue, connection=self.connection)

    # ------------------------------------------------------------------- lock and life

    def acquire_lock(self) -> bool:
        """Take or renew the lock; return whether this scheduler has it."""
        if self._lock.local.token is not None:
            if time.monotonic() - self._renewed_at < RENEW_S:
                return True
            with suppress(LockError):
                asked_at = time.monotonic()
                self._lock.reacquire()
                self._renewed_at = asked_at
                return True
            logger.warning("scheduler: no longer active")
            self._lock.local.token = None
        asked_at = time.monotonic()
        if not self._lock.acquire(blocking=False):
            if not self._standing_by:
                logger.info("scheduler: standing by: another scheduler is active")
            self._standing_by = True
            if self.connection.pttl(self.scheduler_lock_key) == NO_TTL:  # no scheduler made it
                self.connection.pexpire(self.scheduler_lock_key, int(LOCK_TTL_S * 1000))
            return False
        self._renewed_at = asked_at
        self._standing_by = False
        logger.info("scheduler: now active")
        return True

    def _move_aside(self) -> int:
        """Move keys of the wrong type aside; return their number."""
        own = {
            self.scheduler_lock_key: "string",
            self.scheduled_jobs_key: "zset",
            self.refused_key: "zset",
            self.key: "hash",
        }
        moved = move_keys_aside(self.connection, own, "scheduler")
        return moved + sum(move_aside(self._queue_of(job)) for job in self.jobs)

    def remove_lock(self) -> None:
        """Release this scheduler's lock, so that another scheduler becomes active at once."""
        if self._lock.local.token is not None:
            with suppress(LockError):
                self._lock.release()

    def heartbeat(self) -> None:
        """Write the heartbeat of this scheduler, active or not."""
        if time.monotonic() - self._announced_at < HEARTBEAT_S:
            return
        with self.connection.pipeline() as pipe:
            pipe.hsetnx(self.key, "birth", time.time())
            pipe.expire(self.key, int(HEARTBEAT_S) + 10)
            pipe.execute()
        self._announced_at = time.monotonic()

    def _install_signal_handlers(self) -> None:
        handle_stop_signals(lambda *_: self.stop.set())

    def _leave(self) -> None:
        if not self._away:
            with suppress(redis.RedisError):
                self.remove_lock()
                self.register_death()


def _ignore_lateness(_seconds: float) -> None:
    """Do nothing: the process has no metrics."""
