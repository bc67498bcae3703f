"""Measures for FEEDBACK and NETWORK, in a thread apart from the checks that read the results.

The default sources of CPU load and unread bytes are in Linux's /proc.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from clusterer.modules.base import Clock, Timer
from clusterer.modules.ratelimit.algorithms import Algorithm, Gauges
from clusterer.modules.ratelimit.table import PipeTable
from clusterer.runtime import forks

log = logging.getLogger(__name__)

GAIN = -25.0

PAUSE_S = 1.0
"""Seconds between two readings of the sockets. The controller steps once an interval."""

_PROC = Path("/proc")
_IDLE, _IOWAIT, _STEAL = 3, 4, 7
_LISTEN = b"0A"


class Controller:
    """Controller of FEEDBACK: a CPU load in, a drop rate out, one step an interval.

    Of the gains of 2.2's PID controller (0, -25 and 0) only that of the integral counts.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all earlier steps."""
        self._integral = 0.0

    def step(self, load: float, limit: int) -> float:
        """Return the percentage to refuse, 0 or more, after an interval of CPU ``load`` (0 to 1).

        ``limit`` is the load to hold, in percent. The integral moves only while it or the error
        is negative: long idle times, which no negative drop rate could balance, must not delay
        the answer to an overload.
        """
        error = limit / 100 - load
        if self._integral < 0 or error < 0:
            self._integral += error
        # 0.9 at a limit of 70 gives 5 %; 5.000000000000002 would refuse one more in 100.
        return max(0.0, round(GAIN * self._integral, 9))


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


class CpuLoad:
    """The share of the host's CPU time, 0 to 1, that was used since the last call.

    The first call returns 0. Waiting for disks does not count as load, time that the hypervisor
    gave to other guests does. Raises `OSError` or `ValueError` if ``proc``/stat cannot be read.
    """

    def __init__(self, proc: Path = _PROC) -> None:
        self._path = proc / "stat"
        self._last: tuple[int, int] | None = None

    def __call__(self) -> float:
        idle, total = now = self._read()
        before, self._last = self._last or now, now
        passed = total - before[1]
        if passed <= 0:
            return 0.0
        # iowait may run backwards by a tick.
        return min(1.0, max(0.0, 1 - (idle - before[0]) / passed))

    def _read(self) -> tuple[int, int]:
        """Return ticks since boot: idle and total."""
        with self._path.open("rb") as stat:
            name, *words = stat.readline().split()
        # user, nice, system, idle, iowait, irq, softirq, steal; guests' time is in user already.
        ticks = [int(word) for word in words[: _STEAL + 1]]
        if name != b"cpu" or len(ticks) <= _IOWAIT:
            raise ValueError(f"{self._path}: the first line must have the times of all CPUs")
        return ticks[_IDLE] + ticks[_IOWAIT], sum(ticks)


class QueuedBytes:
    """Unread bytes in UDP and TCP sockets.

    ``ports``: only sockets bound to one of these local ports; empty: all sockets of this network
    namespace. Takes about 2 µs a socket. Raises `OSError` or `ValueError` if one of
    ``proc``/net/udp, tcp, udp6 and tcp6 cannot be read.
    """

    def __init__(self, ports: Collection[int] = (), proc: Path = _PROC) -> None:
        self._ports = frozenset(b"%04X" % port for port in ports)
        self._net = proc / "net"

    def __call__(self) -> int:
        return sum(self._unread(self._net / name) for name in ("udp", "tcp", "udp6", "tcp6"))

    def _unread(self, path: Path) -> int:
        try:
            lines = path.read_bytes().splitlines()[1:]
        except FileNotFoundError:
            if path.name.endswith("6"):  # IPv6 may be disabled
                return 0
            raise
        return sum(self._queues(path, lines))

    def _queues(self, path: Path, lines: list[bytes]) -> Iterator[int]:
        for line in lines:
            try:
                _, local, _, state, queues, *_ = line.split()
                # The queue of a listening socket holds connections to be accepted.
                if state != _LISTEN and (not self._ports or local[-4:] in self._ports):
                    yield int(queues[9:], 16)
            except ValueError as error:
                raise ValueError(f"{path}: invalid line {line!r:.120}") from error
