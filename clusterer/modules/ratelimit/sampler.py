"""Measures what FEEDBACK and NETWORK judge by, away from the calls that are judged."""

from __future__ import annotations

import logging
from collections.abc import Callable

from clusterer.modules.ratelimit.algorithms import Algorithm
from clusterer.modules.ratelimit.feedback import Controller
from clusterer.modules.ratelimit.gauges import Gauges
from clusterer.modules.ratelimit.reading import Reading
from clusterer.modules.ratelimit.table import PipeTable
from clusterer.modules.ratelimit.timer import Timer
from clusterer.runtime import forks

log = logging.getLogger(__name__)

PAUSE_S = 1.0
"""Seconds between two looks at the sockets. The controller steps once an interval."""


class Sampler:
    """Writes the gauges; one call of `sample` measures what is due.

    Has a thread of its own between `start` and `stop`, from the first pipe on that needs it.
    """

    def __init__(
        self,
        table: PipeTable,
        gauges: Gauges,
        cpu_load: Callable[[], float],
        queued_bytes: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self._table = table
        self._gauges = gauges
        self._cpu_load = Reading("CPU load", "FEEDBACK", cpu_load, 1.0)
        self._queued_bytes = Reading("waiting bytes", "NETWORK", queued_bytes, float("inf"))
        self._clock = clock
        self._controller = Controller()
        self._interval = -1
        self._sampling = forks.lock()
        self._starting = (
            forks.lock()
        )  # taken while the table is locked, so never the other way round
        self._started = self._warned = False
        self._timer: Timer | None = None

    def start(self) -> None:
        """Measure from now on, as far as pipes need it."""
        self._started = True
        demand = self._table.demand(self._clock())
        if demand.feedback is not None or demand.network:
            self._run()

    def want(self, name: str, algorithm: Algorithm) -> None:
        """Note that a pipe is made or changed that judges by what is measured."""
        if self._started:
            self._run()
        elif not self._warned:
            self._warned = True
            log.warning(
                "pipe %.60r refuses nothing yet: %s needs measurements, which begin with start()",
                name,
                algorithm.name,
            )

    def stop(self) -> None:
        """End the thread and forget what was measured: it will not be true for long."""
        with self._starting:
            self._started = False
            timer, self._timer = self._timer, None
        if timer is not None:
            timer.stop()
        with self._sampling:
            self._forget()

    def renew_in_child(self) -> None:
        """Be stopped in a forked child, where the thread is missing."""
        self._started, self._timer = False, None
        self._forget()

    def sample(self) -> None:
        """Look at the sockets, and once an interval at the CPU. Never raises.

        The sockets are looked at only while there are NETWORK pipes. What cannot be measured
        refuses nothing.
        """
        with self._sampling:
            demand = self._table.demand(self._clock())
            if demand.network:
                self._gauges.queued_bytes = self._queued_bytes.read() or 0.0
            if demand.interval != self._interval:
                self._interval = demand.interval
                self._step(demand.feedback)

    def _forget(self) -> None:
        self._controller.reset()
        self._interval = -1
        self._gauges.clear()

    def _run(self) -> None:
        with self._starting:
            if self._started and self._timer is None:
                pause = min(PAUSE_S, self._table.interval)
                self._timer = Timer("ratelimit-load", self.sample, pause)

    def _step(self, limit: int | None) -> None:
        # Read in any case: the source compares with its last call.
        load = self._cpu_load.read()
        if load is None or limit is None:
            self._controller.reset()
            self._gauges.drop_rate = 0.0
        else:
            self._gauges.drop_rate = self._controller.step(load, limit)
