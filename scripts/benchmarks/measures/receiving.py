"""One listener process: packets per second next to a bare protocol, cost, hostile streams."""

from __future__ import annotations

from statistics import median
from time import monotonic
from typing import Any

from scripts.benchmarks.paths import paired_ratio
from scripts.benchmarks.plan import Plan
from scripts.benchmarks.processes import BenchmarkFailed, Child, cpu_s, memory_mb
from scripts.benchmarks.roles.listeners import BareListener, Listener, RatelimitListener
from scripts.benchmarks.roles.nodes import Nodes
from scripts.benchmarks.system import FIRST_RECEIVER, System
from tests.support.hostile import attack, resident_mb, streams
from tests.support.ports import free_port
from tests.support.processes import wait_until

NODES = 8
"""Nodes that send to the listener, each over a connection of its own."""
MACHINE_IDS = list(range(FIRST_RECEIVER, FIRST_RECEIVER + NODES))
"""The nodes' machine_ids; all have the address 127.0.0.1."""
PACKETS = 100_000
"""Packets per connection and round; the module's packets take longer, and are fewer."""
MODULE_PACKETS = 25_000
RATE = 100_000
AT_ONCE = 1000
IDLE_CONNECTIONS = 1000
IDLE_RATE = 100

CASES = 1_000_000
WARM_UP_CASES = 20_000
SPLITS = (0, 0, 0, 0, 64, 0, 0, 0, 7)
SEED = 22


def speed(system: System, plan: Plan) -> dict[str, Any]:
    """Measure the listener with a no-op callback and with the ratelimit module."""
    bare_port = free_port()
    bare: Child[Listener] = system.child(BareListener, bare_port)
    plain, plain_port = _listener(system, 1, Listener)
    module, module_port = _listener(system, 2, RatelimitListener)
    nodes = system.child(Nodes)
    bare_rates, plain_rates, module_rates = [], [], []
    for _ in plan.turns():
        bare_rates.append(_flood(nodes, bare, bare_port, PACKETS))
        plain_rates.append(_flood(nodes, plain, plain_port, PACKETS))
        module_rates.append(_flood(nodes, module, module_port, MODULE_PACKETS))
    return {
        "listener": _figures(plain_rates, bare_rates),
        "listener_ratelimit": _figures(module_rates, bare_rates),
    }


def redis_commands(system: System, plan: Plan) -> dict[str, Any]:
    """Measure the commands that an instance has Redis run while 100,000 packets/s come in."""
    child, port = _listener(system, 1, Listener)
    nodes = system.child(Nodes)
    nodes.call(Nodes.hold, port, NODES)
    nodes.call(Nodes.trickle, MACHINE_IDS, RATE, AT_ONCE, seconds=1.0)
    counted = child.call(Listener.count)
    before = _commands(system)
    sent = nodes.call(Nodes.trickle, MACHINE_IDS, RATE, AT_ONCE, plan.paced_s)
    commands = _commands(system) - before - 1  # the first look itself
    wait_until(lambda: child.call(Listener.count) >= counted + sent * 0.99, message="packets")
    return {"redis_commands_per_s": commands / plan.paced_s}


def idle_connections(system: System, plan: Plan) -> dict[str, Any]:
    """Measure CPU and memory of an instance with 1,000 connections and 100 packets/s in all."""
    child, port = _listener(system, 1, Listener)
    nodes = system.child(Nodes)
    nodes.call(Nodes.hold, port, IDLE_CONNECTIONS)
    before = cpu_s(child.pid)
    nodes.call(Nodes.trickle, MACHINE_IDS, IDLE_RATE, 1, plan.paced_s)
    return {
        "idle_connections": {
            "connections": IDLE_CONNECTIONS,
            "cpu_percent": (cpu_s(child.pid) - before) / plan.paced_s * 100,
            "memory_mb": memory_mb(child.pid),
        }
    }


def decoder_fuzz(system: System, plan: Plan) -> dict[str, Any]:
    """Decode a million streams that begin like BIN and then lie; any fault raises."""
    for data in streams(SEED - 1, WARM_UP_CASES):
        attack(data, 0)
    memory, begun, packets = resident_mb(), monotonic(), 0
    for number, data in enumerate(streams(SEED, CASES)):
        packets += attack(data, SPLITS[number % len(SPLITS)])
    return {
        "decoder_fuzz": {
            "cases": CASES,
            "packets": packets,
            "seconds": monotonic() - begun,
            "growth_mb": resident_mb() - memory,
        }
    }


def _listener(system: System, server_id: int, role: type[Listener]) -> tuple[Child[Listener], int]:
    port = free_port()
    system.provision(server_id, NODES, own_port=port)
    return system.child(role, server_id), port


def _flood(nodes: Child[Nodes], listener: Child[Listener], port: int, packets: int) -> float:
    before = listener.call(Listener.count)
    seconds = nodes.call(Nodes.flood, port, MACHINE_IDS, packets)
    got = listener.call(Listener.count) - before
    if got != packets * NODES:
        raise BenchmarkFailed(f"listener: {got} of {packets * NODES} packets came to the callback")
    return packets * NODES / seconds


def _figures(rates: list[float], bare: list[float]) -> dict[str, float]:
    return {
        "packets_per_s": median(rates),
        "vs_bare": paired_ratio(rates, bare),
        "bare_packets_per_s": median(bare),
    }


def _commands(system: System) -> int:
    """Return how many commands Redis has run, those of scripts and ours included."""
    info: Any = system.client.info("stats")
    return int(info["total_commands_processed"])
