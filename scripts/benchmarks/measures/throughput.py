"""Deliveries per second from one sender to four nodes: ours, the bare limit, one job each."""

from __future__ import annotations

from statistics import median
from typing import Any

from scripts.benchmarks import paths
from scripts.benchmarks.paths import Path
from scripts.benchmarks.plan import Plan
from scripts.benchmarks.stats import Spread, paired_ratio
from scripts.benchmarks.system import System

NODES = 4
SIZE = 100
"""Packets in a call of `send_many`."""


def single(system: System, plan: Plan) -> dict[str, Any]:
    """Measure calls of `send_to`."""
    return {"single": _compare(system, plan, 1, plan.packets)}


def batch(system: System, plan: Plan) -> dict[str, Any]:
    """Measure calls of `send_many` with 100 packets."""
    return {"batch": _compare(system, plan, SIZE, plan.batch_packets)}


def _compare(system: System, plan: Plan, size: int, packets: int) -> dict[str, Any]:
    with system.scene() as scene:
        naive = paths.naive(scene, NODES)
        limit = paths.limit(scene, NODES, size)
        ours = paths.ours(scene, NODES, size)
        naive.warm_up(5)
        limit.warm_up(packets // 10)
        ours.warm_up(packets // 10)
        for turn in plan.turns():
            limit.run(packets)
            ours.run(packets)
            if turn % 2 == 0:
                naive.run(plan.naive_packets)
    rate = Spread.of(ours.rates())
    return {
        "deliveries_per_s": round(rate.middle),
        "vs_naive": round(rate.middle / median(naive.rates()), 1),
        "vs_limit": round(paired_ratio(ours.rates(), limit.rates()), 3),
        "cpu_us_per_delivery": round(median(one.cpu_us for one in ours.rounds), 2),
        "packets_per_s": round(rate.middle / NODES),
        "packets": packets,
        "spread": _spread(ours),
        "limit": _others(limit),
        "naive": _others(naive),
    }


def _others(path: Path) -> dict[str, Any]:
    return {
        "deliveries_per_s": round(median(path.rates())),
        "packets_per_s": round(median(path.rates()) / path.nodes),
        "cpu_us_per_delivery": round(median(one.cpu_us for one in path.rounds), 2),
        "spread": _spread(path),
    }


def _spread(path: Path) -> list[int]:
    spread = Spread.of(path.rates())
    return [round(spread.low), round(spread.high)]
