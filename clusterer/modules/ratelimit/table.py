"""All pipes of an instance. The time is an argument; no thread, no network."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from clusterer.modules.ratelimit.algorithms import MEASURED, Algorithm, Gauges
from clusterer.modules.ratelimit.pipe import (
    MAX_NAME,
    Pipe,
    PipeView,
    require_algorithm,
    wire_name,
)
from clusterer.payloads.message import as_text
from clusterer.payloads.ratelimit import Fields
from clusterer.runtime import forks

_AT_ONCE = float("-inf")


@dataclass(frozen=True, slots=True)
class Limits:
    """Lifetimes, in seconds, and bounds of what a `PipeTable` keeps."""

    remote_lifetime: float = 10.0
    """A remote counter not refreshed for this time counts as 0."""
    idle_lifetime: float = 3_600.0
    """A pipe not used for this time is removed."""
    max_pipes: int = 10_000
    """Own pipes; at this number a new pipe replaces the least recently used one."""
    max_received_pipes: int = 10_000
    """Pipes that only other instances use."""
    max_remote_counters: int = 1_000_000
    """Counters of other instances, over all pipes."""


ALGORITHMS = tuple(sorted(Algorithm))
"""By number."""


class Demand(NamedTuple):
    """Measurements that the pipes in use need."""

    interval: int
    """Number of the current interval."""
    feedback: int | None
    """The CPU load to hold, in percent; None without FEEDBACK pipes."""
    network: bool
    """Whether there are NETWORK pipes."""


class PipeTable:
    """Pipes by name: own ones, and those that only other instances use.

    Times are monotonic seconds. Safe to share between threads.
    """

    def __init__(
        self,
        limits: Limits,
        interval: float,
        now: float,
        gauges: Gauges,
        on_measured: Callable[[str, Algorithm], object],
        *,
        on_evicted: Callable[[], object] = lambda: None,
    ) -> None:
        """Start empty at ``now``, counting over ``interval`` seconds.

        The table calls ``on_measured``, which must not call the table, when a pipe begins to need
        ``gauges``, and ``on_evicted`` after it evicted pipes.
        """
        self._limits = limits
        self._gauges = gauges
        self._on_measured = on_measured
        self._on_evicted = on_evicted
        self.evicted = 0
        """Pipes evicted for new ones."""
        self._eviction_pending = False
        self.interval = interval
        self._lock = forks.lock()
        self._own: OrderedDict[str, Pipe] = OrderedDict()
        """Least recently used first."""
        self._newest: Pipe | None = None
        self._received: dict[str, Pipe] = {}
        self._remote_counters = 0
        self._interval_end = now + interval
        self._interval_number = 0
        self._by_wire_name: dict[bytes, Pipe] = {}
        """All pipes, own and received."""
        self._in_use: set[Algorithm] = set()
        self._feedback_limit: int | None = None

    def check(self, name: str, limit: int, algorithm: int, now: float) -> bool:
        """Count one use of the pipe ``name`` and return whether it passes."""
        with self._lock:
            if now >= self._interval_end:  # hot path: `_catch_up` inline
                self._end_interval(now)
            pipe = self._own.get(name)
            if pipe is None or pipe.asked != limit or pipe.algorithm != algorithm:
                pipe = self._configured(name, limit, algorithm)
            if pipe is not self._newest:
                self._own.move_to_end(name)
                self._newest = pipe
            pipe.used = now
            pipe.counter += 1
            if now >= pipe.total_until:
                pipe.sum_remote(now, self._limits.remote_lifetime)
            passes = pipe.rule(pipe, now)
        if self._eviction_pending:
            self._eviction_pending = False
            self._on_evicted()
        return passes

    def demand(self, now: float) -> Demand:
        """Return what to measure; a need ends at most an interval after its last pipe."""
        with self._lock:
            self._catch_up(now)
            feedback = self._feedback_limit if Algorithm.FEEDBACK in self._in_use else None
            return Demand(self._interval_number, feedback, Algorithm.NETWORK in self._in_use)

    def own_pipes(self, now: float) -> list[Pipe]:
        """Return the own pipes to send to other instances.

        NONE pipes are left out: OpenSIPS 2.2.8 makes them TAILDROP pipes of limit 0, and logs a
        warning for each packet.
        """
        with self._lock:
            self._catch_up(now)
            if Algorithm.HISTORY in self._in_use:
                for pipe in self._own.values():
                    pipe.window.advance(now)
            return [p for p in self._own.values() if p.algorithm is not Algorithm.NONE]

    def receive(self, machine_id: int, records: Iterable[Fields], now: float) -> int:
        """Take the counters of one packet; return how many were refused: negative, or no room.

        Hot path: ``with`` takes twice as long for an uncontended lock.
        """
        refused = 0
        self._lock.acquire()
        try:
            if now >= self._interval_end:
                self._end_interval(now)
            for name, algorithm, limit, counter in records:
                if counter < 0:
                    refused += 1
                    continue
                pipe = self._by_wire_name.get(name)
                if pipe is None or machine_id not in pipe.remote:
                    pipe = self._room_for(machine_id, name, pipe)
                    if pipe is None:
                        refused += 1
                        continue
                pipe.remote[machine_id] = counter, now
                pipe.total_until = _AT_ONCE
                if not pipe.local:
                    pipe.used = now
                    pipe.algorithm, pipe.limit = ALGORITHMS[algorithm], limit
        finally:
            self._lock.release()
        return refused

    def forget_node(self, machine_id: int) -> None:
        """Remove all counters that ``machine_id`` sent."""
        with self._lock:
            for pipe in self._by_wire_name.values():
                if pipe.remote.pop(machine_id, None) is not None:
                    self._remote_counters -= 1
                    pipe.total_until = _AT_ONCE

    def views(self, now: float) -> dict[str, PipeView]:
        """Return all pipes by name, sorted."""
        with self._lock:
            self._catch_up(now)
            lifetime = self._limits.remote_lifetime
            views = [pipe.view(now, lifetime) for pipe in self._by_wire_name.values()]
        return {view.name: view for view in sorted(views, key=lambda view: view.name)}

    def _configured(self, name: str, limit: int, algorithm: int) -> Pipe:
        """Return the pipe with this limit and algorithm; a received pipe becomes an own one."""
        encoded = wire_name(name)
        wanted = require_algorithm(name, algorithm, limit)
        pipe = self._own.get(name)
        if pipe is None:
            if len(self._own) >= self._limits.max_pipes:
                self._evict()
            pipe = self._received.pop(name, None) or self._new_pipe(name, encoded)
            self._own[name] = pipe
        pipe.configure(limit, wanted, self.interval)
        self._in_use.add(wanted)
        if wanted is Algorithm.FEEDBACK and limit != self._feedback_limit:
            # All FEEDBACK pipes have the newest limit: the host has one CPU load.
            self._feedback_limit = limit
            for other in self._own.values():
                if other.algorithm is Algorithm.FEEDBACK:
                    other.limit = limit
        if wanted in MEASURED:
            self._on_measured(name, wanted)
        return pipe

    def _room_for(self, machine_id: int, name: bytes, pipe: Pipe | None) -> Pipe | None:
        """Return the pipe for a new counter, None if there is no room."""
        if self._remote_counters >= self._limits.max_remote_counters:
            return None
        if pipe is None:
            if len(self._received) >= self._limits.max_received_pipes or len(name) > MAX_NAME:
                return None
            pipe = self._new_pipe(as_text(name), name)
            self._received[pipe.name] = pipe
        self._remote_counters += 1
        return pipe

    def _new_pipe(self, name: str, wire_name: bytes) -> Pipe:
        pipe = self._by_wire_name[wire_name] = Pipe(name, wire_name, self._gauges)
        return pipe

    def _catch_up(self, now: float) -> None:
        if now >= self._interval_end:
            self._end_interval(now)

    def _end_interval(self, now: float) -> None:
        missed = (now - self._interval_end) // self.interval
        end = self._interval_end + (missed + 1) * self.interval
        # Rounding may leave the new end at now: the interval would have no time.
        self._interval_end = end if end > now else now + self.interval
        self._interval_number += 1
        for pipe in self._own.values():
            pipe.end_interval(missed=missed > 0)
        for pipes in (self._own, self._received):
            self._drop_unused(pipes, now)
        self._in_use = {pipe.algorithm for pipe in self._own.values()}

    def _evict(self) -> None:
        self._drop(self._own, next(iter(self._own.values())))
        self.evicted += 1
        self._eviction_pending = True

    def _drop_unused(self, pipes: dict[str, Pipe], now: float) -> None:
        for pipe in list(pipes.values()):
            self._remote_counters -= pipe.drop_stale(now, self._limits.remote_lifetime)
            if now - pipe.used >= self._limits.idle_lifetime:
                self._drop(pipes, pipe)

    def _drop(self, pipes: dict[str, Pipe], pipe: Pipe) -> None:
        self._remote_counters -= len(pipe.remote)
        del pipes[pipe.name], self._by_wire_name[pipe.wire_name]
