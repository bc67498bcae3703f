"""The ratelimit module: limits that all machines of a cluster count together."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self

from clusterer.errors import InvalidArgument
from clusterer.ids import PROTO_BIN, require_id
from clusterer.modules.ratelimit.algorithms import Algorithm
from clusterer.modules.ratelimit.cluster import Cluster, Stats
from clusterer.modules.ratelimit.gauges import Gauges
from clusterer.modules.ratelimit.pipe import PipeView
from clusterer.modules.ratelimit.receiver import Receiver
from clusterer.modules.ratelimit.sampler import Sampler
from clusterer.modules.ratelimit.sender import Sender
from clusterer.modules.ratelimit.sources import CpuLoad, QueuedBytes
from clusterer.modules.ratelimit.table import Limits, PipeTable
from clusterer.modules.ratelimit.timer import Timer
from clusterer.payloads.ratelimit import MODULE
from clusterer.runtime import forks
from clusterer.runtime.logs import LimitedLog, NodeLike

log = logging.getLogger(__name__)

QUIET_S = 600.0
"""Seconds between two log lines about pipes that went for new ones."""


class RateLimit:
    """Limits how often things may happen, counted over all machines of a cluster.

    Works alone as well, with neither cluster_id given. All methods may be called from any thread.
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
        clock: Callable[[], float] = time.monotonic,
        cpu_load: Callable[[], float] | None = None,
        queued_bytes: Callable[[], float] | None = None,
    ) -> None:
        """Make the module on top of ``clusterer``; nothing is sent or received before `start`.

        ``replicate_pipes_to``, ``accept_pipes_from``: cluster_ids; None sends or accepts nothing.
        ``accept_pipes_timeout``: seconds of silence after which a machine's counters are
        invalidated, 0 for never. ``auth_check``: take packets only from pairs of IP address and
        machine_id that the cluster knows. ``timer_interval``: seconds over which uses are
        counted, the same on all machines. ``replication_interval``: seconds between sendings.
        ``max_pipes``: own pipes, 1 to 2**31 - 1 (default: that of ``limits``, 10,000); a new one
        beyond takes the place of the one that was not used for longest.
        ``limits``: lifetimes and bounds; ``clock``: seconds that never go back.
        ``cpu_load``: for FEEDBACK, gives the share of the CPU, 0 to 1, in use since its last call
        (default: `CpuLoad`); ``queued_bytes``: for NETWORK, gives the bytes now waiting in the
        sockets (default: `QueuedBytes` of all sockets).

        Raises `InvalidArgument`.
        """
        self._clusterer = clusterer
        self._from = _cluster_id("accept_pipes_from", accept_pipes_from)
        self._timeout = _seconds("accept_pipes_timeout", accept_pipes_timeout, zero=True)
        self._auth_check = auth_check
        interval = _seconds("timer_interval", timer_interval)
        self._pause = _seconds("replication_interval", replication_interval)
        self._clock = clock
        gauges = Gauges()
        self._limits = _bounded(limits or Limits(), max_pipes)
        self._table = PipeTable(
            self._limits, interval, clock(), gauges, self._want, on_evicted=self._note_evicted
        )
        self._limited = LimitedLog(log, QUIET_S)
        self._sampler = Sampler(
            self._table, gauges, cpu_load or CpuLoad(), queued_bytes or QueuedBytes(), clock
        )
        self._stats = Stats()
        self._receiver = Receiver(self._table, self._stats, clock, self._nodes)
        self._sender: Sender | None = None
        cluster_id = _cluster_id("replicate_pipes_to", replicate_pipes_to)
        if cluster_id is not None:
            self._sender = Sender(clusterer, cluster_id, self._table, self._stats, clock)
        self._starting = forks.lock()
        self._registered = False
        self._timer: Timer | None = None
        forks.renew_in_child(self)

    def check(self, name: str, limit: int, algorithm: int = Algorithm.TAILDROP) -> bool:
        """Count one use of the pipe ``name`` and return whether it passes.

        ``limit``: uses per second, of all machines together, 0 to 2**31 - 1; for HISTORY uses in
        10 s, for NETWORK bytes, for FEEDBACK the CPU load to hold in percent, 1 to 99, one limit
        for all its pipes. The pipe is made at its first use (name: 1 to 1,024 bytes of UTF-8); a
        call with another limit or algorithm changes it. At ``max_pipes`` a new pipe takes the place
        of the one that was not used for longest. Never waits for the network. Raises
        `InvalidArgument` for a name, limit or algorithm that cannot be used.
        """
        return self._table.check(name, limit, algorithm, self._clock())

    def pipes(self) -> dict[str, PipeView]:
        """Return all pipes by name, also those that only other machines use."""
        return self._table.views(self._clock())

    @property
    def stats(self) -> Stats:
        """A copy of what was counted so far."""
        return replace(self._stats, pipes_evicted=self._table.evicted)

    def start(self) -> None:
        """Accept the others' pipes, send ours about ten times a second and measure, until `stop`.

        Packets arrive only while the instance's `serve` runs. Raises `StateUnavailable`, with
        nothing started, if Redis is away and the module cannot be registered.
        """
        with self._starting:
            if self._from is not None and not self._registered:
                self._register(self._from)
            if self._sender and self._timer is None:
                self._timer = Timer("ratelimit", self._sender.send, self._pause)
        self._sampler.start()

    def stop(self) -> None:
        """End sending and measuring. Packets that still come are taken as before.

        FEEDBACK and NETWORK refuse nothing from then on.
        """
        with self._starting:
            timer, self._timer = self._timer, None
        if timer is not None:
            timer.stop()
        self._sampler.stop()

    def renew_in_child(self) -> None:
        """Be stopped in a forked child: two processes that send for one machine would contradict
        each other. `check` goes on there, from the counters as they were.
        """
        self._timer = None
        self._sampler.renew_in_child()

    def sample(self) -> None:
        """Measure what is due now, as the timer does: CPU load once an interval, sockets always.

        Nothing that goes wrong is raised: it is logged when it begins and when it ends.
        """
        self._sampler.sample()

    def replicate(self) -> bool:
        """Send our counters now, as the timer does; return whether they were handed over.

        Nothing that goes wrong is raised: it is logged when it begins and when it ends.
        """
        return self._sender.send() if self._sender else False

    def _register(self, cluster_id: int) -> None:
        self._clusterer.register_module(
            MODULE, PROTO_BIN, self._receiver.take, self._timeout, self._auth_check, cluster_id
        )
        self._registered = True

    def _nodes(self) -> Sequence[NodeLike]:
        return self._clusterer.get_nodes(self._from or 0, PROTO_BIN)

    def _want(self, name: str, algorithm: Algorithm) -> None:
        self._sampler.want(name, algorithm)

    def _note_evicted(self) -> None:
        self._limited.warning(
            "evicted",
            self._clock(),
            "ratelimit: more than %d own pipes: those not used for longest go, and count from 0 "
            "when they are used again; use fewer names, or raise max_pipes",
            self._limits.max_pipes,
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def _bounded(limits: Limits, max_pipes: int | None) -> Limits:
    wanted = limits.max_pipes if max_pipes is None else max_pipes
    return replace(limits, max_pipes=require_id("max_pipes", wanted))


def _cluster_id(name: str, value: int | None) -> int | None:
    return None if value is None else require_id(name, value)


def _seconds(name: str, value: object, *, zero: bool = False) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidArgument(f"{name} must be seconds, not {value!r}")
    if math.isfinite(value) and (value > 0 or (zero and value == 0)):
        return float(value)
    least = "0 or more" if zero else "more than 0"
    raise InvalidArgument(f"{name} must be {least} seconds, not {value!r}")
