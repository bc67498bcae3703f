"""All measurements: what each is called, and which keys of the result it fills."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from scripts.benchmarks.measures.cost import idle, lookups, memory
from scripts.benchmarks.measures.growth import growth
from scripts.benchmarks.measures.latency import cold, stuck_peer, warm
from scripts.benchmarks.measures.many_senders import FIFTY, THOUSAND, TWO_HUNDRED
from scripts.benchmarks.measures.peers import peers
from scripts.benchmarks.measures.receiving import (
    decoder_fuzz,
    idle_connections,
    redis_commands,
    speed,
)
from scripts.benchmarks.measures.throughput import aio, batch, nodes, post, single, threads
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
    Measure(("post",), post, weight=3, quick=False),
    Measure(("aio",), aio, weight=2, quick=False),
    Measure(("many_senders",), FIFTY, quick=False),
    Measure(("many_senders_200",), TWO_HUNDRED, quick=False),
    Measure(("many_senders_1000",), THOUSAND, quick=False),
    Measure(("stuck_peer",), stuck_peer, quick=False),
    Measure(("memory",), memory, quick=False),
)

RECEIVING = (
    Measure(("listener", "listener_ratelimit"), speed, weight=3),
    Measure(("redis_commands_per_s",), redis_commands),
    Measure(("idle_connections",), idle_connections),
    Measure(("decoder_fuzz",), decoder_fuzz, quick=False),
)
COMPARING = (Measure(("peers",), peers),)
GROWING = (Measure(("growth",), growth),)
GROUPS = {"send": SENDING, "receive": RECEIVING, "peers": COMPARING, "growth": GROWING}
"""Names for many measurements at once; without any, sending is what is measured."""


def known_keys() -> list[str]:
    """Return the names of all figures."""
    return [key for group in GROUPS.values() for measure in group for key in measure.keys]


def chosen(which: Sequence[str], *, quick: bool) -> list[Measure]:
    """Return the measurements of a run: those asked for, and of groups all that belong to it."""
    found = []
    for name, group in GROUPS.items():
        whole = name in (which or ["send"])
        found += [
            measure
            for measure in group
            if set(which) & set(measure.keys) or (whole and (measure.quick or not quick))
        ]
    return found
