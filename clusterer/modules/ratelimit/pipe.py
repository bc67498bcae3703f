"""A pipe: its valid names and limits, its counters, and their sum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from clusterer.errors import InvalidArgument
from clusterer.modules.ratelimit.algorithms import RULES, Algorithm, Gauges, Rule, Window
from clusterer.payloads.ratelimit import INT_MAX, PipeRecord

MAX_NAME = 1_024
"""Longest name of a pipe, in UTF-8 bytes."""

_NEVER = float("inf")


def wire_name(name: object) -> bytes:
    """Return the bytes of a pipe's name. Raises `InvalidArgument`."""
    if not isinstance(name, str) or not name:
        raise InvalidArgument(f"pipe name must be a str that is not empty, not {name!r:.60}")
    try:
        data = name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise InvalidArgument(f"pipe name {name!r:.60} is not UTF-8: {error.reason}") from error
    if data.decode("utf-8", "surrogateescape") != name:
        raise InvalidArgument(f"pipe name {name!r:.60} has the same UTF-8 bytes as another name")
    if len(data) > MAX_NAME:
        raise InvalidArgument(
            f"pipe name {name!r:.60} must have at most {MAX_NAME} bytes, not {len(data)}"
        )
    return data


def require_algorithm(name: str, algorithm: int, limit: object) -> Algorithm:
    """Return the `Algorithm`. Raises `InvalidArgument` if it or its limit is invalid."""
    try:
        found = Algorithm(algorithm)
    except ValueError:
        raise InvalidArgument(f"pipe {name!r:.60}: unknown algorithm {algorithm!r}") from None
    low, high, what = 0, INT_MAX, "an integer"
    if found is Algorithm.FEEDBACK:
        low, high, what = 1, 99, "a percentage of CPU load, an integer"
    if isinstance(limit, bool) or not isinstance(limit, int) or not low <= limit <= high:
        raise InvalidArgument(
            f"limit of pipe {name!r:.60} must be {what} from {low} to {high}, not {limit!r}"
        )
    return found


@dataclass(frozen=True, slots=True)
class PipeView:
    """A pipe at one moment."""

    name: str
    algorithm: Algorithm
    limit: int
    counter: int
    """Own checks in the current interval, refused ones included."""
    last_counter: int
    """Own checks in the last whole interval; sent to other instances, except for HISTORY."""
    remote: Mapping[int, int]
    """Fresh counters of other instances by machine_id."""
    local: bool
    """False for a pipe that only other instances use."""
    window: int = 0
    """Own checks that HISTORY counted in the last 10 s; sent to other instances."""


@dataclass(slots=True, eq=False)
class Pipe:
    """Counters of one pipe."""

    name: str
    wire_name: bytes
    gauges: Gauges
    local: bool = False
    """Whether this instance uses it."""
    algorithm: Algorithm = Algorithm.NONE
    limit: int = 0
    asked: int = 0
    """Limit of the last check; `limit` may be that of another FEEDBACK pipe."""
    rule: Rule = RULES[Algorithm.NONE]
    allowed: float = 0.0
    """Checks that the limit allows in an interval."""
    window: Window = field(default_factory=Window)
    counter: int = 0
    """Own checks of the current interval, the present one included."""
    last: int = 0
    """Own checks of the last whole interval."""
    used: float = 0.0
    """Time of the last check or received counter."""
    remote: dict[int, tuple[int, float]] = field(default_factory=dict)
    """By machine_id: counter and time of its arrival."""
    remote_total: int = 0
    """Sum of the other instances' fresh counters."""
    total_until: float = _NEVER
    """Time at which a counter in ``remote_total`` stops being fresh."""

    @property
    def record(self) -> PipeRecord:
        """The pipe as sent to other instances."""
        # Only the own window, without remote counters: else they would echo between instances.
        counter = self.window.total if self.algorithm is Algorithm.HISTORY else self.last
        return PipeRecord(self.wire_name, self.algorithm, self.limit, counter)

    def configure(self, limit: int, algorithm: Algorithm, interval: float) -> None:
        """Set the algorithm and its limit; ``interval``: seconds."""
        self.local = True
        self.limit = self.asked = limit
        self.algorithm = algorithm
        self.rule, self.allowed = RULES[algorithm], limit * interval

    def end_interval(self, *, missed: bool) -> None:
        """Reset the counter; ``missed``: a whole interval passed without a check."""
        self.last = 0 if missed else self.counter
        self.counter = 0

    def drop_stale(self, now: float, lifetime: float) -> int:
        """Remove remote counters not refreshed for ``lifetime`` seconds; return how many."""
        stale = [m for m, (_, came) in self.remote.items() if now - came >= lifetime]
        for machine_id in stale:
            del self.remote[machine_id]
        return len(stale)

    def sum_remote(self, now: float, lifetime: float) -> None:
        """Sum the fresh remote counters, and set the time until which the sum is valid."""
        fresh = [pair for pair in self.remote.values() if now - pair[1] < lifetime]
        self.remote_total = sum(value for value, _ in fresh)
        self.total_until = min((came for _, came in fresh), default=_NEVER) + lifetime

    def view(self, now: float, lifetime: float) -> PipeView:
        """Return the pipe at ``now``."""
        self.window.advance(now)
        remote = {m: value for m, (value, came) in self.remote.items() if now - came < lifetime}
        return PipeView(
            name=self.name,
            algorithm=self.algorithm,
            limit=self.limit,
            counter=self.counter,
            last_counter=self.last,
            remote=MappingProxyType(remote),
            local=self.local,
            window=self.window.total,
        )
