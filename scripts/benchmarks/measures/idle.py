"""What a whole system costs while nothing happens."""

from __future__ import annotations

import time
from typing import Any

from scripts.benchmarks.plan import Plan
from scripts.benchmarks.system import System
from tests.support.ports import free_port

NODES = 4


def idle(system: System, plan: Plan) -> dict[str, Any]:
    """Measure the CPU time of an instance, the workers, the scheduler and Redis."""
    with system.scene() as scene:
        scene.provision(1, NODES, own_port=free_port())
        processes = {
            kind: scene.process("workers", kind) for kind in ("delivery", "maintenance", "database")
        }
        processes["scheduler"] = scene.process("scheduler")
        processes["node"] = scene.process("clusterer", "node", server_id=1)
        time.sleep(plan.settle_s)

        def used() -> dict[str, float]:
            return {name: process.cpu_s for name, process in processes.items()} | {
                "redis": scene.redis_cpu_s()
            }

        before, begun = used(), time.monotonic()
        time.sleep(plan.idle_s)
        after, took = used(), time.monotonic() - begun
        scene.require_alive()
    percent = {name: (after[name] - before[name]) / took * 100 for name in after}
    return {
        "idle_cpu_percent": round(sum(percent.values()), 2),
        "idle_cpu_percent_by_process": {name: round(one, 2) for name, one in percent.items()},
    }
