"""What grows with the number of nodes: the cost of `send_to`, and deliveries per second."""

from __future__ import annotations

from statistics import median
from typing import Any

from scripts.benchmarks import paths
from scripts.benchmarks.children import Child, Process
from scripts.benchmarks.plan import Plan
from scripts.benchmarks.system import Scene, System

NUMBERS = (1, 4, 16, 64)
CALLS = 1000
PACED_CALLS = 60
PACED_RATE = 200.0
DELIVERIES = 200_000

Samples = dict[int, list[float]]


def nodes(system: System, plan: Plan) -> dict[str, Any]:
    """Measure for each number of nodes, one after the other in every round.

    The cost of a call is taken while nobody delivers yet: with a worker that writes to 64 nodes
    on the same few cores, it would be the wait for a core. That is reported beside it.
    """
    rates: Samples = {number: [] for number in NUMBERS}
    with system.scene() as scene:
        # Cluster N has N nodes; one process sends to all of them.
        for number in NUMBERS:
            scene.provision(number, number)
        child = scene.senders(*NUMBERS)
        before = scene.received()
        costs = _costs(child, plan)
        worker = scene.worker()
        scene.wait_for(
            before + sum(number * len(costs[number]) for number in NUMBERS), "first packets"
        )
        busy = {number: _cost_while_delivering(scene, child, number) for number in NUMBERS}
        ways = [_path(scene, child, number, worker) for number in NUMBERS]
        for _ in plan.turns():
            for way in ways:
                packets = max(DELIVERIES // way.nodes, 10_000)
                rates[way.nodes].append(way.run(packets).per_s)
    return {
        "send_to_us": _by_number(costs, 1),
        "send_to_us_while_delivering": _by_number(busy, 1),
        "deliveries_per_s": _by_number(rates, None),
    }


def _by_number(samples: Samples, digits: int | None) -> dict[str, float]:
    return {str(number): round(median(found), digits) for number, found in samples.items()}


def _costs(child: Child, plan: Plan) -> Samples:
    found: Samples = {number: [] for number in NUMBERS}
    for _ in range(plan.rounds):
        for number, costs in found.items():
            costs.extend(child.call("paced", senders=[number], packets=CALLS, rate=1e6))
    return found


def _cost_while_delivering(scene: Scene, child: Child, number: int) -> list[float]:
    before = scene.received()
    found: list[float] = child.call("paced", senders=[number], packets=PACED_CALLS, rate=PACED_RATE)
    scene.wait_for(before + PACED_CALLS * number, f"send_to to {number} nodes")
    return found


def _path(scene: Scene, child: Child, number: int, worker: Process) -> paths.Path:
    def send(packets: int) -> Any:
        return child.call("batch", sender=number, packets=packets, size=100)

    return paths.Path(f"{number} nodes", scene, number, [worker, child], send)
