"""One listener process and eight connections: packets per second next to a bare protocol."""

from __future__ import annotations

from statistics import median
from typing import Any

from scripts.benchmarks.children import BenchmarkFailed, Child
from scripts.benchmarks.plan import Plan
from scripts.benchmarks.stats import paired_ratio
from scripts.benchmarks.system import FIRST_RECEIVER, Scene, System
from tests.support.ports import free_port
from tests.support.processes import wait_until

PEERS = 8
PACKETS = 100_000
"""Packets per connection and round; the module's packets take longer, and are fewer."""
MODULE_PACKETS = 25_000
RATE = 100_000
AT_ONCE = 1000
IDLE_CONNECTIONS = 1000
IDLE_RATE = 100

SERVER_IDS = {"bare": 1, "listener": 2, "ratelimit": 3}

MACHINES = list(range(FIRST_RECEIVER, FIRST_RECEIVER + PEERS))
"""The peers' machine_ids; all have the address 127.0.0.1."""


def speed(system: System, plan: Plan) -> dict[str, Any]:
    """Measure the listener with a no-op callback and with the ratelimit module."""
    with system.scene() as scene:
        ours = [_listener(scene, kind) for kind in ("bare", "listener", "ratelimit")]
        peers = _peers(scene)
        rates: list[list[float]] = [[], [], []]
        for _ in plan.turns():
            for found, (child, port), packets in zip(
                rates, ours, (PACKETS, PACKETS, MODULE_PACKETS), strict=True
            ):
                found.append(_flood(peers, child, port, packets))
    bare, plain, module = rates
    return {
        "listener": _figures(plain, bare),
        "listener_ratelimit": _figures(module, bare),
    }


def redis_commands(system: System, plan: Plan) -> dict[str, Any]:
    """Measure the commands that an instance has Redis run while 100,000 packets/s come in."""
    with system.scene() as scene:
        child, port = _listener(scene, "listener")
        peers = _peers(scene)
        peers.call("hold", port=port, connections=PEERS)
        options = {"machine_ids": MACHINES, "rate": RATE, "at_once": AT_ONCE}
        peers.call("trickle", seconds=1.0, **options)
        counted = child.call("count")
        before = _commands(scene)
        sent = peers.call("trickle", seconds=plan.paced_s, **options)
        commands = _commands(scene) - before - 1  # the first look itself
        wait_until(lambda: child.call("count") >= counted + sent * 0.99, 10, "packets are in")
    return {"redis_commands_per_s": round(commands / plan.paced_s, 1)}


def idle_connections(system: System, plan: Plan) -> dict[str, Any]:
    """Measure CPU and memory of an instance with 1,000 connections and 100 packets/s in all."""
    with system.scene() as scene:
        child, port = _listener(scene, "listener")
        peers = _peers(scene)
        peers.call("hold", port=port, connections=IDLE_CONNECTIONS)
        before = child.cpu_s
        peers.call("trickle", machine_ids=MACHINES, rate=IDLE_RATE, at_once=1, seconds=plan.paced_s)
        cpu = (child.cpu_s - before) / plan.paced_s * 100
        memory = child.memory_mb
    return {
        "idle_connections": {
            "connections": IDLE_CONNECTIONS,
            "cpu_percent": round(cpu, 2),
            "memory_mb": round(memory, 1),
        }
    }


def _listener(scene: Scene, kind: str) -> tuple[Child, int]:
    port = free_port()
    server_id = SERVER_IDS[kind]
    scene.provision(server_id, PEERS, own_port=port)
    child = scene.child("listening", kind=kind, port=port, server_id=server_id)
    child.answer()
    probe = _peers(scene)
    probe.call("hold", port=port, connections=1)
    return child, port


def _peers(scene: Scene) -> Child:
    child = scene.child("peers")
    child.answer()
    return child


def _flood(peers: Child, listener: Child, port: int, packets: int) -> float:
    before = listener.call("count")
    seconds = peers.call("flood", port=port, machine_ids=MACHINES, packets=packets)
    got = listener.call("count") - before
    if got != packets * PEERS:
        raise BenchmarkFailed(f"the listener handed on {got} of {packets * PEERS} packets")
    return packets * PEERS / float(seconds)


def _figures(rates: list[float], bare: list[float]) -> dict[str, float]:
    return {
        "packets_per_s": round(median(rates)),
        "vs_bare": round(paired_ratio(rates, bare), 3),
        "bare_packets_per_s": round(median(bare)),
    }


def _commands(scene: Scene) -> int:
    """Return how many commands Redis has run, those of scripts and ours included."""
    info: Any = scene.client.info("stats")
    return int(info["total_commands_processed"])
