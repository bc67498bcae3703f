"""Fifty senders, each in a cluster of its own, that share two delivery workers."""

from __future__ import annotations

from collections import Counter
from typing import Any

from scripts.benchmarks.plan import Plan
from scripts.benchmarks.stats import percentiles
from scripts.benchmarks.system import Scene, System

SENDERS = 50
PROCESSES = 2
NODES = 4
RATE = 20.0
"""Packets per second and sender."""


def many_senders(system: System, plan: Plan) -> dict[str, Any]:
    """Measure latency, the slowest sender's share, and RQ jobs per second."""
    ids = list(range(1, SENDERS + 1))
    packets = int(RATE * plan.paced_s)
    with system.scene() as scene:
        for number in ids:
            scene.provision(number, NODES)
        for _ in range(2):
            scene.worker()
        parts = [ids[number::PROCESSES] for number in range(PROCESSES)]
        children = [scene.senders(*part) for part in parts]
        scene.shared.timed = True

        def send(each: int, what: str) -> None:
            expected = scene.received() + each * SENDERS * NODES
            for child, part in zip(children, parts, strict=True):
                count = each * len(part)
                child.begin("paced", senders=part, packets=count, rate=RATE * len(part))
            for child in children:
                child.answer()
            scene.wait_for(expected, what)

        send(20, "many senders, warming up")
        scene.shared.clear()
        jobs = _jobs(scene)
        send(packets, "many senders")
        jobs = _jobs(scene) - jobs
        arrivals = scene.shared.arrivals()
    share = Counter(arrival.sender for arrival in arrivals)
    return {
        "many_senders": percentiles([arrival.latency_ms for arrival in arrivals])
        | {
            "packets_each": packets,
            "slowest_packets": min(share[number] for number in ids) / NODES,
            "jobs_per_s": round(jobs / plan.paced_s, 2),
        }
    }


def _jobs(scene: Scene) -> int:
    """Return how many delivery jobs there have been so far; RQ keeps them for a minute."""
    queue = scene.settings.delivery_queue
    pipe = scene.client.pipeline()
    pipe.zcard(f"rq:finished:{queue}").zcard(f"rq:wip:{queue}").llen(f"rq:queue:{queue}")
    return sum(pipe.execute())
