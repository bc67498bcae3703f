"""Ends a worker within seconds of a signal, also if its job, RQ or Redis hangs."""

from __future__ import annotations

import logging
import os
import signal
import threading
from contextlib import suppress
from types import FrameType
from typing import Any

import redis
from redis.client import PubSubWorkerThread
from rq.exceptions import StopRequested

from clusterer.runtime.rounds import Rounds
from clusterer.runtime.stop import StopFlag, handle_stop_signals
from workers import runtime
from workers.maintenance import Maintenance

RETRY_S = 0.5
"""Pause between attempts while Redis is away."""
GRACE_S = 4.0
"""Time that a job has to end after a stop request; then the process ends in any case."""

logger = logging.getLogger(__name__)


class Stoppable(Maintenance):
    """The part of a worker that ends the worker after a stop request."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._left = threading.Event()
        self._waiting = False
        self._commands = Rounds("worker commands")

    @property
    def stop(self) -> StopFlag:
        """The process's stop flag, which running jobs watch."""
        return runtime.current().stop

    def _heed_signals(self) -> None:
        """Install the signal handlers; start the thread that ends the process after `GRACE_S`."""
        handle_stop_signals(self.request_stop)
        threading.Thread(target=self._end_in_time, name="end-in-time", daemon=True).start()

    def request_stop(self, signum: int, frame: FrameType | None) -> None:
        """Signal handler: let the running job end; touches neither Redis nor locks."""
        self.stop.set()
        self.note_stop_request()
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
            logger.error("worker %s: job did not end in %g s; process ends", self.name, GRACE_S)
            os._exit(1)

    def _leave(self) -> None:
        runtime.current().close()
        with suppress(redis.RedisError):
            self.register_death()  # type: ignore[no-untyped-call]
        self._left.set()
        with suppress(redis.RedisError):
            self.unsubscribe()

    def unsubscribe(self) -> None:
        """End the thread that listens for RQ's commands; RQ's order may take a second."""
        listener: PubSubWorkerThread | None = self.pubsub_thread
        if self.pubsub is not None and listener is not None:
            listener.stop()
            self.pubsub.unsubscribe()  # type: ignore[no-untyped-call]
            listener.join(timeout=RETRY_S)

    def commands_failed(self, error: Exception, listener: PubSubWorkerThread) -> None:
        """Keep listening for RQ's commands across outages and undecodable commands.

        Errors of a worker that leaves mean nothing: `unsubscribe` uses the listener's connection.
        """
        outage = isinstance(error, redis.RedisError | OSError)
        if not outage and not self._left.is_set():
            self._commands.failed(error)
        if self._left.wait(RETRY_S):
            listener.stop()
