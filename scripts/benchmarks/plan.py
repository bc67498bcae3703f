"""How much is measured, and how long it may take."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from time import monotonic


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run does; `QUICK` and `FULL` are the two usual ones."""

    ends_after_s: int
    """Bound of the whole run."""
    rounds: int
    """Rounds of each path."""
    batch_packets: int
    """Packets of a round of calls with 100 packets each."""
    naive_packets: int
    """Packets of a round of one RQ job per packet and node."""
    paced_s: float
    """Length of steady traffic."""
    wakes: int
    """Number of senders that send again after silence."""
    settle_s: float
    """Pause before the CPU time of idle processes is measured."""
    idle_s: float
    """Length of that measurement."""
    packets: int = 10_000
    """Packets of a round of single calls."""
    end: float = float("inf")
    """When no further round may begin (monotonic seconds)."""

    def turns(self) -> Iterator[int]:
        """Number the rounds; after the first one only as long as there is time for another."""
        begun = monotonic()
        for turn in range(self.rounds):
            now = monotonic()
            if turn and now + (now - begun) / turn > self.end:
                return
            yield turn


QUICK = Plan(
    ends_after_s=46,
    rounds=3,
    batch_packets=100_000,
    naive_packets=50,
    paced_s=3.0,
    wakes=15,
    settle_s=3.0,
    idle_s=5.0,
)
FULL = Plan(
    ends_after_s=1200,
    rounds=7,
    batch_packets=200_000,
    naive_packets=100,
    paced_s=10.0,
    wakes=40,
    settle_s=8.0,
    idle_s=20.0,
)
