"""Several threads of one process that send at once, next to one alone."""

from __future__ import annotations

from statistics import median
from typing import Any

from scripts.benchmarks.plan import Plan
from scripts.benchmarks.stats import paired_ratio
from scripts.benchmarks.system import System

NODES = 4
SECONDS = 1.5


def threads(system: System, plan: Plan) -> dict[str, Any]:
    """Measure packets per second of one thread and of four, in turns."""
    rates: dict[int, list[float]] = {1: [], 4: []}
    with system.scene() as scene:
        scene.provision(1, NODES)
        scene.worker()
        sender = scene.senders(1)
        sender.call("threads", sender=1, threads=1, seconds=0.2)
        for _ in plan.turns():
            for number, found in rates.items():
                found.append(sender.call("threads", sender=1, threads=number, seconds=SECONDS))
    return {
        "threads": {
            "one_packets_per_s": round(median(rates[1])),
            "four_packets_per_s": round(median(rates[4])),
            "vs_one": round(paired_ratio(rates[4], rates[1]), 2),
        }
    }
