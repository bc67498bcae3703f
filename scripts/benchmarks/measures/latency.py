"""From just before `send_to` to the receiver's socket, in steady traffic and after silence."""

from __future__ import annotations

from typing import Any

from scripts.benchmarks.plan import Plan
from scripts.benchmarks.stats import percentiles
from scripts.benchmarks.system import System

NODES = 4
RATE = 100.0
"""Packets per second of steady traffic."""
LINGER_S = 0.1


def warm(system: System, plan: Plan) -> dict[str, Any]:
    """Measure steady traffic of one sender."""
    with system.scene() as scene:
        scene.provision(1, NODES)
        scene.worker()
        sender = scene.senders(1)
        scene.shared.timed = True
        before = scene.received()
        sender.call("paced", senders=[1], packets=50, rate=RATE)
        scene.wait_for(before + 50 * NODES, "warm latency, warming up")
        scene.shared.clear()
        packets = int(plan.paced_s * RATE)
        sender.call("paced", senders=[1], packets=packets, rate=RATE)
        scene.wait_for(before + (50 + packets) * NODES, "warm latency")
        samples = [arrival.latency_ms for arrival in scene.shared.arrivals()]
    return {"latency_warm_ms": percentiles(samples) | {"samples": len(samples)}}


def cold(system: System, plan: Plan) -> dict[str, Any]:
    """Measure the first packet after silence: each needs a new job and new connections.

    Many senders send once and fall silent; then one after the other is woken, each only once
    the job that the one before it had started has ended.
    """
    ids = list(range(1, plan.wakes + 1))
    with system.scene(linger=LINGER_S) as scene:
        for number in ids:
            scene.provision(number, NODES)
        scene.worker()
        sender = scene.senders(*ids)
        scene.shared.timed = True
        expected = scene.received() + len(ids) * NODES
        sender.call("paced", senders=ids, packets=len(ids), rate=100.0)
        scene.wait_for(expected, "cold latency, first packets")
        scene.shared.clear()
        for number in ids:
            scene.wait_for_quiet(ids)
            expected += NODES
            sender.call("paced", senders=[number], packets=1, rate=1.0)
            scene.wait_for(expected, f"cold latency of sender {number}")
        samples = [arrival.latency_ms for arrival in scene.shared.arrivals()]
    return {"latency_cold_ms": percentiles(samples) | {"samples": len(samples)}}
