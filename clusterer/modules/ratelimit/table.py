"""All pipes of an instance. Every call gets the time; no thread, no network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from threading import Lock

from clusterer.errors import InvalidArgument
from clusterer.modules.ratelimit.algorithms import RULES, Algorithm
from clusterer.modules.ratelimit.codec import INT_MAX, PipeRecord
from clusterer.modules.ratelimit.pipe import Pipe, PipeView

_AT_ONCE = float("-inf")

MAX_NAME = 1_024
"""Longest name of a pipe, in UTF-8 bytes."""


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


class PipeTable:
    """Pipes by name: those that are used here, and those that only other machines use.

    Times are seconds of a clock that never goes back. Safe to share between threads.
    """

    def __init__(self, limits: Limits, interval: float, now: float) -> None:
        """Start empty at ``now``, counting over ``interval`` seconds."""
        self._limits = limits
        self._interval = interval
        self._lock = Lock()
        self._own: dict[str, Pipe] = {}
        self._received: dict[str, Pipe] = {}
        self._remote_counters = 0
        self._interval_end = now + interval

    def check(self, name: str, limit: int, algorithm: int, now: float) -> bool:
        """Count one use of the pipe ``name`` and return whether it passes."""
        with self._lock:
            if now >= self._interval_end:
                self._end_interval(now)
            pipe = self._own.get(name)
            if pipe is None or pipe.limit != limit or pipe.algorithm != algorithm:
                pipe = self._configured(name, limit, algorithm)
            pipe.used = now
            pipe.counter += 1
            if now >= pipe.total_until:
                pipe.sum_remote(now, self._limits.remote_lifetime)
            return pipe.rule(pipe.counter + pipe.remote_total, pipe.last, pipe.allowed)

    def own_pipes(self, now: float) -> list[Pipe]:
        """Return the pipes used here, which other machines must hear of."""
        with self._lock:
            self._catch_up(now)
            return list(self._own.values())

    def receive(self, machine_id: int, records: Iterable[PipeRecord], now: float) -> int:
        """Take the counters of one packet; return for how many there was no place."""
        with self._lock:
            self._catch_up(now)
            return sum([not self._take(machine_id, record, now) for record in records])

    def forget_machine(self, machine_id: int) -> None:
        """Invalidate all counters that ``machine_id`` sent."""
        with self._lock:
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
        wire_name = _wire_name(name)
        wanted = _supported(name, algorithm)
        _require_limit(name, limit)
        pipe = self._own.get(name)
        if pipe is None:
            pipe = self._received.pop(name, None) or Pipe(name, wire_name)
            self._own[name] = pipe
        pipe.configure(limit, wanted, self._interval)
        return pipe

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
        if name not in self._own:
            pipe.used = now
            pipe.algorithm, pipe.limit = Algorithm(record.algorithm), record.limit
        return True

    def _new_received(self, name: str, wire_name: bytes) -> Pipe | None:
        full = len(self._received) >= self._limits.max_received_pipes
        if full or len(wire_name) > MAX_NAME:
            return None
        pipe = self._received[name] = Pipe(name, wire_name)
        return pipe

    def _catch_up(self, now: float) -> None:
        if now >= self._interval_end:
            self._end_interval(now)

    def _end_interval(self, now: float) -> None:
        missed = (now - self._interval_end) // self._interval
        end = self._interval_end + (missed + 1) * self._interval
        # Rounding may leave the new end at now: that would be an interval without any time.
        self._interval_end = end if end > now else now + self._interval
        for pipe in self._own.values():
            pipe.end_interval(missed=missed > 0)
        for pipes in (self._own, self._received):
            self._drop_unused(pipes, now)

    def _drop_unused(self, pipes: dict[str, Pipe], now: float) -> None:
        for pipe in list(pipes.values()):
            self._remote_counters -= pipe.drop_stale(now, self._limits.remote_lifetime)
            if now - pipe.used >= self._limits.idle_lifetime:
                self._remote_counters -= len(pipe.remote)
                del pipes[pipe.name]


def _wire_name(name: object) -> bytes:
    if not isinstance(name, str) or not name:
        raise InvalidArgument(f"a pipe's name must be text, not {name!r}")
    try:
        data = name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise InvalidArgument(
            f"name of pipe {name!r:.60} cannot be UTF-8: {error.reason}"
        ) from error
    if len(data) > MAX_NAME:
        raise InvalidArgument(
            f"name of pipe {name!r:.60} takes {len(data)} bytes, {MAX_NAME} at most"
        )
    return data


def _require_limit(name: str, limit: object) -> None:
    if isinstance(limit, bool) or not isinstance(limit, int) or not 0 <= limit <= INT_MAX:
        raise InvalidArgument(
            f"limit of pipe {name!r:.60} must be an integer from 0 to {INT_MAX}, not {limit!r}"
        )


def _supported(name: str, algorithm: int) -> Algorithm:
    try:
        wanted = Algorithm(algorithm)
    except ValueError:
        raise InvalidArgument(f"pipe {name!r:.60}: there is no algorithm {algorithm!r}") from None
    if wanted not in RULES:
        able = ", ".join(known.name for known in RULES)
        raise InvalidArgument(f"pipe {name!r:.60}: {wanted.name} is not supported yet, only {able}")
    return wanted
