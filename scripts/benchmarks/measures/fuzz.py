"""A million streams that begin like BIN and then lie, through decoder and messages."""

from __future__ import annotations

from time import monotonic
from typing import Any

from scripts.benchmarks.plan import Plan
from scripts.benchmarks.system import System
from tests.support.hostile import attack, resident_mb, streams

CASES = 1_000_000
WARM_UP = 20_000
SPLITS = (0, 0, 0, 0, 64, 0, 0, 0, 7)
SEED = 22


def decoder_fuzz(system: System, plan: Plan) -> dict[str, Any]:
    """Count cases, packets among them, and growth of memory; any fault raises."""
    for data in streams(SEED - 1, WARM_UP):
        attack(data, 0)
    memory, begun, packets = resident_mb(), monotonic(), 0
    for number, data in enumerate(streams(SEED, CASES)):
        packets += attack(data, SPLITS[number % len(SPLITS)])
    seconds = monotonic() - begun
    return {
        "decoder_fuzz": {
            "cases": CASES,
            "packets": packets,
            "seconds": round(seconds, 1),
            "growth_mb": round(resident_mb() - memory, 1),
        }
    }
