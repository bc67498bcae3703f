"""The ratelimit module's public class: limits that all instances of a cluster count together."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import replace

from clusterer.errors import InvalidArgument
from clusterer.ids import require_id
from clusterer.modules.base import Clock, Cluster, Module, Timer, require_dialect2
from clusterer.modules.ratelimit.algorithms import Algorithm, Gauges
from clusterer.modules.ratelimit.measuring import CpuLoad, QueuedBytes, Sampler
from clusterer.modules.ratelimit.pipe import PipeView
from clusterer.modules.ratelimit.replication import Receiver, Sender, Stats
from clusterer.modules.ratelimit.table import Limits, PipeTable
from clusterer.payloads.ratelimit import MODULE
from clusterer.runtime import forks
from clusterer.runtime.logs import LimitedLog

log = logging.getLogger(__name__)

QUIET_S = 600.0
"""Seconds between two log lines about evicted pipes."""


class RateLimit(Module):
    """Limits how often things may happen, counted over all instances of a cluster.

    Without any cluster_id it counts for this instance alone. All methods may be called from any
    thread.
    """

    def __init__(
        self,
        clusterer: Cluster,
        *,
        replicate_pipes_to: int | None = None,
        accept_pipes_from: int | None = None,
        accept_pipes_timeout: float = 10,
        auth_check: bool = False,
        timer_interval: float = 10,
        replication_interval: float = 0.1,
        max_pipes: int | None = None,
        limits: Limits | None = None,
        clock: Clock = time.monotonic,
        cpu_load: Callable[[], float] | None = None,
        queued_bytes: Callable[[], float] | None = None,
    ) -> None:
        """Make the module on top of ``clusterer``; nothing is sent or received before `start`.

        ``replicate_pipes_to``, ``accept_pipes_from``: cluster_ids; None sends or accepts nothing.
        ``accept_pipes_timeout``: seconds without a packet after which a node's counters are
        invalidated, 0 for never. ``auth_check``: take packets only from pairs of IP address and
        machine_id that the cluster knows. ``timer_interval``: seconds over which uses are
        counted, the same on all instances. ``replication_interval``: seconds between two sends.
        ``max_pipes``: own pipes, 1 to 2**31 - 1 (default: that of ``limits``, 10,000); beyond it
        a new pipe replaces the least recently used one. ``limits``: lifetimes and bounds.
        ``clock``: monotonic seconds. ``cpu_load``: for FEEDBACK, returns the share of the CPU,
        0 to 1, in use since its last call (default: `CpuLoad`); ``queued_bytes``: for NETWORK,
        returns the unread bytes in the sockets (default: `QueuedBytes` of all sockets).

        Raises `InvalidArgument`.
        """
        accept_from = _cluster_id("accept_pipes_from", accept_pipes_from)
        timeout = _seconds("accept_pipes_timeout", accept_pipes_timeout, zero=True)
        interval = _seconds("timer_interval", timer_interval)
        pause = _seconds("replication_interval", replication_interval)
        self._clock = clock
        gauges = Gauges()
        limits = limits or Limits()
        self._max_pipes = require_id(
            "max_pipes", limits.max_pipes if max_pipes is None else max_pipes
        )
        self._table = PipeTable(
            replace(limits, max_pipes=self._max_pipes),
            interval,
            clock(),
            gauges,
            self._want,
            on_evicted=self._log_evicted,
        )
        self._limited = LimitedLog(log, QUIET_S)
        self._sampler = Sampler(
            self._table, gauges, cpu_load or CpuLoad(), queued_bytes or QueuedBytes(), clock
        )
        self._stats = Stats()
        self._sender: Sender | None = None
        timer = None
        cluster_id = _cluster_id("replicate_pipes_to", replicate_pipes_to)
        require_dialect2(clusterer, MODULE, cluster_id)
        if cluster_id is not None:
            self._sender = Sender(clusterer, cluster_id, self._table, self._stats, clock)
            timer = Timer("ratelimit", self._sender.send, pause)
        self._receiver = Receiver(self._table, self._stats, clock, self._nodes)
        callbacks = [(self._receiver.take, timeout)]
        super().__init__(clusterer, MODULE, accept_from, callbacks, auth_check, timer)
        forks.renew_in_child(self)

    def check(self, name: str, limit: int, algorithm: int = Algorithm.TAILDROP) -> bool:
        """Count one use of the pipe ``name`` and return whether it passes.

        ``limit``: uses per second, of all instances together, 0 to 2**31 - 1; for HISTORY uses in
        10 s, for NETWORK bytes, for FEEDBACK the CPU load to hold in percent, 1 to 99, one limit
        for all its pipes. The first use makes the pipe (name: 1 to 1,024 bytes of UTF-8); a call
        with another limit or algorithm changes it. At ``max_pipes`` a new pipe replaces the least
        recently used one. Never waits for the network. Raises `InvalidArgument` for a name, limit
        or algorithm that is invalid.
        """
        return self._table.check(name, limit, algorithm, self._clock())

    def pipes(self) -> dict[str, PipeView]:
        """Return all pipes by name, also those that only other instances use."""
        return self._table.views(self._clock())

    @property
    def stats(self) -> Stats:
        """A copy of the counts since the module was made."""
        return replace(self._stats, pipes_evicted=self._table.evicted)

    def start(self) -> None:
        """Accept other instances' pipes, send the own ones every ``replication_interval``, measure.

        Packets arrive only while the instance's `serve` runs. Raises `StateUnavailable`, with
        nothing started, if Redis is unavailable and the module cannot be registered.
        """
        super().start()
        self._sampler.start()

    def stop(self) -> None:
        """End sending and measuring. Packets that still arrive are taken as before.

        FEEDBACK and NETWORK refuse nothing from then on.
        """
        super().stop()
        self._sampler.stop()

    def renew_in_child(self) -> None:
        """Be stopped in a forked child: two processes that send for one node would contradict
        each other. `check` continues there with a copy of the counters.
        """
        self._sampler.renew_in_child()

    def sample(self) -> None:
        """Measure what is due now, as the timer does: the CPU load once an interval, the sockets
        always. Never raises: a failure is logged when it begins and when it ends.
        """
        self._sampler.sample()

    def replicate(self) -> bool:
        """Send the own counters now, as the timer does; return whether that succeeded.

        Never raises: a failure is logged when it begins and when it ends.
        """
        return self._sender.send() if self._sender else False

    def _want(self, name: str, algorithm: Algorithm) -> None:
        self._sampler.want(name, algorithm)

    def _log_evicted(self) -> None:
        self._limited.warning(
            "evicted",
            self._clock(),
            "ratelimit: more than %d own pipes: least recently used pipes evicted, which count "
            "from 0 at their next use; use fewer names, or raise max_pipes",
            self._max_pipes,
        )


def _cluster_id(name: str, value: int | None) -> int | None:
    return None if value is None else require_id(name, value)


def _seconds(name: str, value: object, *, zero: bool = False) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidArgument(f"{name} must be seconds, not {value!r}")
    if math.isfinite(value) and (value > 0 or (zero and value == 0)):
        return float(value)
    least = "0 or more" if zero else "more than 0"
    raise InvalidArgument(f"{name} must be {least} seconds, not {value!r}")
