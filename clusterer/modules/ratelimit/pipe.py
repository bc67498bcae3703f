"""One pipe: its counters, and how they add up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from clusterer.modules.ratelimit.algorithms import RULES, Algorithm, Rule
from clusterer.modules.ratelimit.gauges import Gauges
from clusterer.modules.ratelimit.window import Window
from clusterer.payloads.ratelimit import PipeRecord

_NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class PipeView:
    """One pipe as it stood at one moment."""

    name: str
    algorithm: Algorithm
    limit: int
    counter: int
    """Own checks in the running interval, refused ones included."""
    last_counter: int
    """Own checks in the last whole interval; other machines are sent this, except by HISTORY."""
    remote: Mapping[int, int]
    """Last counters of other machines by machine_id, those that are fresh."""
    local: bool
    """False for a pipe that only other machines use."""
    window: int = 0
    """Own checks that HISTORY counted in the last 10 s; this is what it sends."""


class Pipe:
    """Counters of one pipe."""

    __slots__ = (
        "algorithm",
        "allowed",
        "asked",
        "counter",
        "gauges",
        "last",
        "limit",
        "local",
        "name",
        "remote",
        "remote_total",
        "rule",
        "total_until",
        "used",
        "window",
        "wire_name",
    )

    def __init__(self, name: str, wire_name: bytes, gauges: Gauges) -> None:
        self.name = name
        self.wire_name = wire_name
        self.local = False  # whether it is used here
        self.algorithm = Algorithm.NONE
        self.limit = 0
        self.asked = 0  # the limit that the last caller gave; FEEDBACK's is everybody's
        self.rule: Rule = RULES[Algorithm.NONE]
        self.allowed = 0.0
        self.gauges = gauges
        self.window = Window()
        self.counter = 0
        self.last = 0
        self.used = 0.0
        self.remote: dict[int, tuple[int, float]] = {}  # counter and when it came, by machine_id
        self.remote_total = 0
        self.total_until = _NEVER  # when the first counter in remote_total stops being fresh

    @property
    def record(self) -> PipeRecord:
        """What other machines are told about this pipe."""
        # Only the own window, without what others sent: else it would echo between machines.
        counter = self.window.total if self.algorithm is Algorithm.HISTORY else self.last
        return PipeRecord(self.wire_name, self.algorithm, self.limit, counter)

    def configure(self, limit: int, algorithm: Algorithm, interval: float) -> None:
        """Judge from now on by ``algorithm`` and ``limit``, in intervals of so many seconds."""
        self.local = True
        self.limit = self.asked = limit
        self.algorithm = algorithm
        self.rule, self.allowed = RULES[algorithm], limit * interval

    def end_interval(self, *, missed: bool) -> None:
        """Start counting anew; ``missed`` says that a whole interval went by without a check."""
        self.last = 0 if missed else self.counter
        self.counter = 0

    def drop_stale(self, now: float, lifetime: float) -> int:
        """Forget remote counters not refreshed for ``lifetime`` seconds; return how many."""
        stale = [m for m, (_, came) in self.remote.items() if now - came >= lifetime]
        for machine_id in stale:
            del self.remote[machine_id]
        return len(stale)

    def sum_remote(self, now: float, lifetime: float) -> None:
        """Add up the fresh remote counters, and note until when the sum is good."""
        fresh = [pair for pair in self.remote.values() if now - pair[1] < lifetime]
        self.remote_total = sum(value for value, _ in fresh)
        self.total_until = min((came for _, came in fresh), default=_NEVER) + lifetime

    def view(self, now: float, lifetime: float) -> PipeView:
        """Return the pipe as it is."""
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
