"""RQ's maintenance of the worker's own queue alone, which survives jobs that RQ cannot read.

RQ would also read the rate limits and job groups of every application on the same Redis. clusterer
uses neither, and leaves those of other applications to their own workers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import redis
from rq.queue import Queue as RqQueue
from rq.utils import now
from rq.worker_registration import WORKERS_BY_QUEUE_KEY, clean_worker_registry

from clusterer.jobs import Queue, is_wrong_type, move_aside
from workers.rq_private import Hooks

logger = logging.getLogger(__name__)


class Maintenance(Hooks):
    """The part of a worker that cleans up after workers that were killed."""

    def _clean_up(self) -> None:
        """Run the maintenance if it is due. Raises redis-py's errors if Redis is away."""
        if self.should_run_maintenance_tasks:
            self.run_maintenance_tasks()  # type: ignore[no-untyped-call]

    def clean_registries(self) -> None:
        """Clean RQ's registries of each queue, one worker at a time."""
        for queue in self.queues:
            if queue.acquire_maintenance_lock():
                try:
                    self._clean(queue)
                finally:
                    queue.release_maintenance_lock()  # type: ignore[no-untyped-call]
        self.last_cleaned_at = now()  # type: ignore[assignment]

    def clean_group_registries(self) -> None:
        """Do nothing: groups belong to other applications."""

    def _clean(self, queue: RqQueue) -> None:
        wrong = False
        for step in self._steps(queue):
            try:
                step()
            except (redis.ConnectionError, redis.TimeoutError):
                raise
            except Exception as error:  # noqa: BLE001 - a hostile registry makes RQ raise anything
                logger.warning("worker %s: RQ could not clean its registries: %s", self.name, error)
                wrong = wrong or is_wrong_type(error)
        if wrong:
            move_aside(queue)

    def _steps(self, queue: RqQueue) -> Iterator[Callable[[], object]]:
        if isinstance(queue, Queue):
            yield queue.tidy
        yield queue.finished_job_registry.cleanup
        yield queue.started_job_registry.cleanup
        yield queue.failed_job_registry.cleanup
        yield lambda: _remove_unreadable_workers(queue)
        yield lambda: clean_worker_registry(queue)
        yield lambda: queue.intermediate_queue.cleanup(self, queue)


def _remove_unreadable_workers(queue: RqQueue) -> None:
    """Remove the members of the queue's set of workers that RQ cannot decode."""
    key = WORKERS_BY_QUEUE_KEY % queue.name
    unreadable = [member for member in queue.connection.smembers(key) if not _is_text(member)]
    if unreadable:
        queue.connection.srem(key, *unreadable)


def _is_text(member: bytes | str) -> bool:
    try:
        return isinstance(member, str) or bool(member.decode())
    except UnicodeDecodeError:
        return False
