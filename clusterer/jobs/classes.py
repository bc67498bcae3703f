"""RQ's `Job` and `Queue` without pickle and without code that a value in Redis names.

RQ builds these classes in many places, often without the serializer that RQ was given. For this
reason the constructors themselves require JSON. JSON alone would still run ``os.system`` by name:
`Job` imports a function only if our list of jobs has it. `Job` ignores callbacks and webhooks,
which another program could write to a job's hash.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, cast

import redis
from rq.exceptions import DequeueTimeout
from rq.job import Job as RqJob
from rq.queue import Queue as RqQueue
from rq.serializers import JSONSerializer
from rq.utils import import_attribute

from clusterer.errors import InvalidArgument
from clusterer.jobs.junk_filter import FILTER_S, JunkFilter
from clusterer.jobs.keys import JOB_FUNCTIONS


class JobRefused(InvalidArgument):
    """A job names a function that is not one of `JOB_FUNCTIONS`."""


class Job(RqJob):
    """RQ's job: always JSON, one of `JOB_FUNCTIONS`, no callbacks and no webhooks."""

    def __init__(
        self,
        id: str | None = None,  # noqa: A002 - RQ passes it by this name
        connection: redis.Redis | None = None,
        serializer: Any = None,
    ) -> None:
        super().__init__(id, connection=connection, serializer=JSONSerializer)

    @classmethod
    def create(cls, *args: Any, **kwargs: Any) -> Job:
        """Make a job as RQ does; raises `JobRefused` for a function that no worker would run."""
        job = cast(Job, super().create(*args, **kwargs))
        job.require_allowed()
        return job

    def require_allowed(self) -> str:
        """Return the function's dotted name, or raise `JobRefused`; imports nothing."""
        name = self.func_name
        if not isinstance(name, str) or name not in JOB_FUNCTIONS or self.instance is not None:
            raise JobRefused(
                f"job function {name!r} refused: not one of {', '.join(sorted(JOB_FUNCTIONS))}"
            )
        return name

    @property
    def func(self) -> Callable[..., Any]:
        return import_attribute(self.require_allowed())

    @property
    def success_callback(self) -> None:
        return None

    @property
    def failure_callback(self) -> None:
        return None

    @property
    def stopped_callback(self) -> None:
        return None

    def send_webhooks(self, *args: Any, **kwargs: Any) -> None:
        """Send nothing: a job's hash must not make a worker call URLs."""


class Queue(RqQueue):
    """RQ's queue: its jobs are our `Job`, its serializer is JSON, whatever it is told."""

    job_class: type[RqJob] = Job

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["serializer"] = JSONSerializer
        kwargs["job_class"] = Job
        super().__init__(*args, **kwargs)
        self._junk_filter: JunkFilter | None = None  # most queue objects only enqueue

    def pop(self, timeout_s: int | None) -> str | None:
        """Move the next job id to the intermediate list and return it.

        Waits at most ``timeout_s`` seconds, or not at all for None; None if there was no job.
        A worker that dies now leaves the id where RQ's maintenance finds it. Bytes that are not
        UTF-8 come as surrogates.
        """
        try:
            found = self.lmove(self.connection, self.key, timeout_s)
        except DequeueTimeout:
            return None
        return found[1].decode("utf-8", "surrogateescape") if found else None

    @property
    def junk_filter(self) -> JunkFilter:
        """The filter that takes junk jobs out of this queue."""
        if self._junk_filter is None:
            self._junk_filter = JunkFilter(self.name, self.connection, self._restored)
        return self._junk_filter

    def load(self, job_id: str) -> Job | None:
        """Read a popped job; None if it is junk, which then leaves the queue.

        Junk that waits behind the job leaves the queue as well: the next good job waits less.
        """
        raw = job_id.encode("utf-8", "surrogateescape")
        found = self.junk_filter.accept(raw, self.key, self.intermediate_queue_key)
        return cast(Job | None, found)

    def tidy(self) -> None:
        """Take junk out of the data that RQ's maintenance reads, which one junk job would end."""
        until = time.monotonic() + FILTER_S
        self.junk_filter.filter_list(self.intermediate_queue_key, until, everything=True)
        self.junk_filter.filter_started(self.started_job_registry.key, time.time(), until)

    def _restored(self, job_id: str, fields: dict[bytes, bytes]) -> Job:
        job = Job(job_id, connection=self.connection)
        job.restore(fields)
        return job
