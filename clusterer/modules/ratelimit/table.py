"""All pipes of an instance. Every call gets the time; no thread, no network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from threading import Lock
from typing import NamedTuple

from clusterer.modules.ratelimit.algorithms import MEASURED, Algorithm
from clusterer.modules.ratelimit.arguments import (
    MAX_NAME,
    require_algorithm,
    require_limit,
    wire_name,
)
from clusterer.modules.ratelimit.gauges import Gauges
from clusterer.modules.ratelimit.pipe import Pipe, PipeView
from clusterer.payloads.ratelimit import PipeRecord

_AT_ONCE = float("-inf")


@dataclass(frozen=True, slots=True)
class Limits:
    """Lifetimes, in seconds, and bounds of what a `PipeTable` keeps."""

    remote_lifetime: float = 10.0
    """A remote counter that was not refreshed for so long counts as 0."""
    idle_lifetime: float = 3_600.0
    """A pipe that was not used for so long goes."""
    max_received_pipes: int = 10_000
    """Pipes that are known only because others sent them."""
    max_remote_counters: int = 1_000_000
    """Counters of other machines, over all pipes."""


ALGORITHMS = tuple(sorted(Algorithm))
"""By number."""


class Demand(NamedTuple):
    """What has to be measured for the pipes in use."""

    interval: int
    """Number of the running interval."""
    feedback: int | None
    """The CPU load to hold, in percent; None without FEEDBACK pipes."""
    network: bool
    """Whether there are NETWORK pipes."""


class Receipt(NamedTuple):
    """What one packet meant, so that the same packet need not be read again."""

    epoch: int
    pipes: tuple[tuple[Pipe, PipeRecord, bool], ...]
    """Each with its record, and whether it is used here."""


class PipeTable:
    """Pipes by name: those that are used here, and those that only other machines use.

    Times are seconds of a clock that never goes back. Safe to share between threads.
    """

    def __init__(
        self,
        limits: Limits,
        interval: float,
        now: float,
        gauges: Gauges,
        on_measured: Callable[[str, Algorithm], object],
    ) -> None:
        """Start empty at ``now``, counting over ``interval`` seconds.

        ``on_measured`` is called, and must not call back, when a pipe begins to judge by
        ``gauges``.
        """
        self._limits = limits
        self._gauges = gauges
        self._on_measured = on_measured
        self.interval = interval
        self._lock = Lock()
        self._own: dict[str, Pipe] = {}
        self._received: dict[str, Pipe] = {}
        self._remote_counters = 0
        self._interval_end = now + interval
        self._interval_number = 0
        self._places: dict[bytes, tuple[Pipe, bool]] = {}
        """Pipes by their name on the wire, and whether they are used here."""
        self._epoch = 0
        """Grows whenever receipts may be wrong: pipes go, change sides, or lose counters."""
        self._in_use: set[Algorithm] = set()
        self._feedback_limit: int | None = None

    def check(self, name: str, limit: int, algorithm: int, now: float) -> bool:
        """Count one use of the pipe ``name`` and return whether it passes."""
        with self._lock:
            if now >= self._interval_end:
                self._end_interval(now)
            pipe = self._own.get(name)
            if pipe is None or pipe.asked != limit or pipe.algorithm != algorithm:
                pipe = self._configured(name, limit, algorithm)
            pipe.used = now
            pipe.counter += 1
            if now >= pipe.total_until:
                pipe.sum_remote(now, self._limits.remote_lifetime)
            return pipe.rule(pipe, now)

    def demand(self, now: float) -> Demand:
        """Return what has to be measured; what is no longer used is noticed within an interval."""
        with self._lock:
            self._catch_up(now)
            feedback = self._feedback_limit if Algorithm.FEEDBACK in self._in_use else None
            return Demand(self._interval_number, feedback, Algorithm.NETWORK in self._in_use)

    def own_pipes(self, now: float) -> list[Pipe]:
        """Return the pipes used here, which other machines must hear of."""
        with self._lock:
            self._catch_up(now)
            if Algorithm.HISTORY in self._in_use:
                for pipe in self._own.values():
                    pipe.window.advance(now)
            return list(self._own.values())

    def receive(self, machine_id: int, records: Iterable[PipeRecord], now: float) -> int:
        """Take the counters of one packet; return for how many there was no place."""
        refused = 0
        with self._lock:
            self._catch_up(now)
            places = self._places
            for record in records:
                place = places.get(record[0])
                if place is None or machine_id not in place[0].remote:
                    refused += not self._take(machine_id, record, now)
                    continue
                pipe, own = place
                pipe.remote[machine_id] = (record[3], now)
                pipe.total_until = _AT_ONCE
                if not own:
                    pipe.used = now
                    pipe.algorithm, pipe.limit = ALGORITHMS[record[1]], record[2]
        return refused

    def receipt(self, records: Iterable[PipeRecord]) -> Receipt | None:
        """Return what to `repeat` when the packet comes again, None if a pipe has just gone."""
        with self._lock:
            found = []
            for record in records:
                place = self._places.get(record.name)
                if place is None:
                    return None
                found.append((place[0], record, place[1]))
            return Receipt(self._epoch, tuple(found))

    def repeat(self, machine_id: int, receipt: Receipt, now: float) -> bool:
        """Take the same counters once more; False, and nothing done, if it must be read anew.

        A counter changes once an interval and is sent a hundred times in between.
        """
        with self._lock:
            self._catch_up(now)
            if receipt.epoch != self._epoch:
                return False
            for pipe, record, own in receipt.pipes:
                pipe.remote[machine_id] = (record.counter, now)
                pipe.total_until = _AT_ONCE
                if not own:
                    pipe.used = now
                    pipe.algorithm, pipe.limit = ALGORITHMS[record.algorithm], record.limit
            return True

    def forget_machine(self, machine_id: int) -> None:
        """Invalidate all counters that ``machine_id`` sent."""
        with self._lock:
            self._invalidate()
            for pipe in self._all():
                if pipe.remote.pop(machine_id, None) is not None:
                    self._remote_counters -= 1
                    pipe.total_until = _AT_ONCE

    def views(self, now: float) -> dict[str, PipeView]:
        """Return all pipes as they are, by name, in the order of their names."""
        with self._lock:
            self._catch_up(now)
            lifetime = self._limits.remote_lifetime
            views = [p.view(now, lifetime, local=p.name in self._own) for p in self._all()]
        return {view.name: view for view in sorted(views, key=lambda view: view.name)}

    def _all(self) -> Iterator[Pipe]:
        return chain(self._own.values(), self._received.values())

    def _configured(self, name: str, limit: int, algorithm: int) -> Pipe:
        """Return the pipe as a caller here wants it; one that was only received becomes ours."""
        encoded = wire_name(name)
        wanted = require_algorithm(name, algorithm)
        require_limit(name, limit, wanted)
        self._invalidate()
        pipe = self._own.get(name)
        if pipe is None:
            pipe = self._received.pop(name, None) or Pipe(name, encoded, self._gauges)
            self._own[name] = pipe
        pipe.configure(limit, wanted, self.interval)
        self._in_use.add(wanted)
        if wanted in MEASURED:
            self._prepare(pipe)
        return pipe

    def _prepare(self, pipe: Pipe) -> None:
        if pipe.algorithm is Algorithm.FEEDBACK and pipe.limit != self._feedback_limit:
            # There is one CPU: the newest limit is that of all FEEDBACK pipes.
            self._feedback_limit = pipe.limit
            for other in self._own.values():
                if other.algorithm is Algorithm.FEEDBACK:
                    other.limit = pipe.limit
        self._on_measured(pipe.name, pipe.algorithm)

    def _take(self, machine_id: int, record: PipeRecord, now: float) -> bool:
        name = record.name.decode("utf-8", "surrogateescape")
        pipe = self._own.get(name) or self._received.get(name)
        if pipe is None or machine_id not in pipe.remote:
            if self._remote_counters >= self._limits.max_remote_counters:
                return False
            pipe = pipe or self._new_received(name, record.name)
            if pipe is None:
                return False
            self._remote_counters += 1
        pipe.remote[machine_id] = (record.counter, now)
        pipe.total_until = _AT_ONCE
        own = name in self._own
        if not own:
            pipe.used = now
            pipe.algorithm, pipe.limit = ALGORITHMS[record.algorithm], record.limit
        self._places[record.name] = (pipe, own)
        return True

    def _new_received(self, name: str, encoded: bytes) -> Pipe | None:
        full = len(self._received) >= self._limits.max_received_pipes
        if full or len(encoded) > MAX_NAME:
            return None
        pipe = self._received[name] = Pipe(name, encoded, self._gauges)
        return pipe

    def _invalidate(self) -> None:
        """Forget places and receipts: pipes go, change sides, or lose counters."""
        self._epoch += 1
        self._places.clear()

    def _catch_up(self, now: float) -> None:
        if now >= self._interval_end:
            self._end_interval(now)

    def _end_interval(self, now: float) -> None:
        missed = (now - self._interval_end) // self.interval
        end = self._interval_end + (missed + 1) * self.interval
        # Rounding may leave the new end at now: that would be an interval without any time.
        self._interval_end = end if end > now else now + self.interval
        self._interval_number += 1
        self._invalidate()
        for pipe in self._own.values():
            pipe.end_interval(missed=missed > 0)
        for pipes in (self._own, self._received):
            self._drop_unused(pipes, now)
        self._in_use = {pipe.algorithm for pipe in self._own.values()}

    def _drop_unused(self, pipes: dict[str, Pipe], now: float) -> None:
        for pipe in list(pipes.values()):
            self._remote_counters -= pipe.drop_stale(now, self._limits.remote_lifetime)
            if now - pipe.used >= self._limits.idle_lifetime:
                self._remote_counters -= len(pipe.remote)
                del pipes[pipe.name]
