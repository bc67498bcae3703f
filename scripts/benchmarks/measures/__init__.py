"""All measurements: what each is called, and which keys of the result it fills."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from scripts.benchmarks.measures.idle import idle
from scripts.benchmarks.measures.latency import cold, warm
from scripts.benchmarks.measures.lookups import lookups
from scripts.benchmarks.measures.many_senders import many_senders
from scripts.benchmarks.measures.memory import memory
from scripts.benchmarks.measures.nodes import nodes
from scripts.benchmarks.measures.stuck_peer import stuck_peer
from scripts.benchmarks.measures.threads import threads
from scripts.benchmarks.measures.throughput import batch, single
from scripts.benchmarks.plan import Plan
from scripts.benchmarks.system import System


@dataclass(frozen=True, slots=True)
class Measure:
    """One measurement."""

    keys: tuple[str, ...]
    """Keys of the result, by which it can be asked for."""
    run: Callable[[System, Plan], dict[str, Any]]
    weight: float = 1
    """Its part of the time of a run, next to the others'."""
    quick: bool = True
    """Whether `--quick` includes it."""


SENDING = (
    Measure(("single",), single, weight=4),
    Measure(("batch",), batch, weight=3),
    Measure(("latency_warm_ms",), warm),
    Measure(("latency_cold_ms",), cold),
    Measure(("send_to_us", "deliveries_per_s"), nodes, weight=3),
    Measure(("get_nodes_us", "check_us"), lookups, weight=0.2),
    Measure(("idle_cpu_percent",), idle, weight=3),
    Measure(("threads",), threads, quick=False),
    Measure(("many_senders",), many_senders, quick=False),
    Measure(("stuck_peer",), stuck_peer, quick=False),
    Measure(("memory",), memory, quick=False),
)


def known_keys() -> list[str]:
    """Return all names that can be asked for."""
    return [key for measure in SENDING for key in measure.keys]


def chosen(which: list[str], *, quick: bool) -> list[Measure]:
    """Return the measurements of a run: those asked for, or all that belong to it."""
    if which:
        return [measure for measure in SENDING if set(which) & set(measure.keys)]
    return [measure for measure in SENDING if measure.quick or not quick]
