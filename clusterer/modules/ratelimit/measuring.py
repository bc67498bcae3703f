"""Measures for FEEDBACK and NETWORK, in a thread apart from the checks that read the results."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from clusterer.modules.base import Clock, Timer
from clusterer.modules.ratelimit.algorithms import Algorithm, Gauges
from clusterer.modules.ratelimit.table import PipeTable
from clusterer.runtime import forks

log = logging.getLogger(__name__)

PAUSE_S = 1.0
"""Seconds between two readings of the sockets. The controller steps once an interval."""


class Controller:
    """PID controller of FEEDBACK: a CPU load in, a drop rate out, one step an interval.

    Gains default to those of 2.2.
    """

    def __init__(self, kp: float = 0.0, ki: float = -25.0, kd: float = 0.0) -> None:
        self._kp, self._ki, self._kd = kp, ki, kd
        self.reset()

    def reset(self) -> None:
        """Forget all earlier steps."""
        self._integral = 0.0
        self._error = 0.0

    def step(self, load: float, limit: int) -> float:
        """Return the percentage to refuse, 0 or more, after an interval of CPU ``load`` (0 to 1).

        ``limit`` is the load to hold, in percent. The integral moves only while it or the error
        is negative: long idle times, which no negative drop rate could balance, must not delay
        the answer to an overload.
        """
        error = limit / 100 - load
        if self._integral < 0 or error < 0:
            self._integral += error
        change, self._error = error - self._error, error
        rate = self._kp * error + self._ki * self._integral + self._kd * change
        # 0.9 at a limit of 70 gives 5 %; 5.000000000000002 would refuse one more in 100.
        return max(0.0, round(rate, 9))


@dataclass(slots=True)
class Reading:
    """Reads a source of numbers from 0 to ``most``; logs when failures begin and end."""

    what: str
    algorithm: Algorithm
    source: Callable[[], float]
    most: float
    failing: bool = False

    def read(self) -> float | None:
        """Return the source's value, None if it raises or is out of range. Never raises."""
        try:
            value = self.source()
            if not 0 <= value <= self.most:
                raise ValueError(f"{value!r} is not from 0 to {self.most:g}")  # noqa: TRY301
        except Exception as error:  # noqa: BLE001  the source may be a user's; it is logged
            self._log_failure(error)
            return None
        if self.failing:
            self.failing = False
            log.info("ratelimit: measuring %s resumed", self.what)
        return value

    def _log_failure(self, error: Exception) -> None:
        if not self.failing:
            self.failing = True
            log.warning(
                "ratelimit: measuring %s failed: %s; %s refuses nothing until it succeeds",
                self.what,
                str(error) or type(error).__name__,
                self.algorithm.name,
            )


class Sampler:
    """Writes the gauges; one call of `sample` measures what is due.

    A thread calls `sample` from the first FEEDBACK or NETWORK pipe after `start` until `stop`.
    """

    def __init__(
        self,
        table: PipeTable,
        gauges: Gauges,
        cpu_load: Callable[[], float],
        queued_bytes: Callable[[], float],
        clock: Clock,
    ) -> None:
        self._table = table
        self._gauges = gauges
        self._cpu_load = Reading("CPU load", Algorithm.FEEDBACK, cpu_load, 1.0)
        self._queued_bytes = Reading("unread bytes", Algorithm.NETWORK, queued_bytes, float("inf"))
        self._clock = clock
        self._controller = Controller()
        self._interval = -1
        self._sampling = forks.lock()
        self._starting = forks.lock()  # `want` takes it while the table is locked
        self._started = self._warned = False
        self._timer = Timer("ratelimit-load", self.sample, min(PAUSE_S, table.interval))

    def start(self) -> None:
        """Measure from now on, while pipes need it."""
        self._started = True
        demand = self._table.demand(self._clock())
        if demand.feedback is not None or demand.network:
            self._run()

    def want(self, name: str, algorithm: Algorithm) -> None:
        """Note that a pipe begins to need measurements."""
        if self._started:
            self._run()
        elif not self._warned:
            self._warned = True
            log.warning(
                "ratelimit pipe %.60r: refuses nothing yet: %s needs measurements; call start()",
                name,
                algorithm.name,
            )

    def stop(self) -> None:
        """End the thread and forget the measurements, which would be outdated soon."""
        with self._starting:
            self._started = False
        self._timer.stop()
        with self._sampling:
            self._forget()

    def renew_in_child(self) -> None:
        """Be stopped in a forked child, where the thread is missing."""
        self._started = False
        self._forget()

    def sample(self) -> None:
        """Read the sockets, and once an interval the CPU load. Never raises.

        The sockets are read only while there are NETWORK pipes. A failed measurement refuses
        nothing.
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
            if self._started:
                self._timer.start()

    def _step(self, limit: int | None) -> None:
        # Read in any case: the source compares with its last call.
        load = self._cpu_load.read()
        if load is None or limit is None:
            self._controller.reset()
            self._gauges.drop_rate = 0.0
        else:
            self._gauges.drop_rate = self._controller.step(load, limit)
