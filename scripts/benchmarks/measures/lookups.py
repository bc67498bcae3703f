"""Questions that the local snapshot answers."""

from __future__ import annotations

from typing import Any

from scripts.benchmarks.plan import Plan
from scripts.benchmarks.stats import percentile
from scripts.benchmarks.system import FIRST_RECEIVER, System

NODES = 4
CALLS = 50_000


def lookups(system: System, plan: Plan) -> dict[str, Any]:
    """Measure get_nodes and check, called in a loop."""
    with system.scene() as scene:
        scene.provision(1, NODES)
        sender = scene.senders(1)
        get_nodes = sender.call("get_nodes", sender=1, calls=CALLS)
        check = sender.call("check", sender=1, machine_id=FIRST_RECEIVER, calls=CALLS)
    return {
        "get_nodes_us": round(percentile(get_nodes, 50), 2),
        "check_us": round(percentile(check, 50), 2),
    }
