"""From just before `send_to` to the receiver: steady, after silence, beside a stuck peer."""

from __future__ import annotations

import socket
from dataclasses import replace
from statistics import median
from typing import Any

from scripts.benchmarks.plan import Plan
from scripts.benchmarks.roles.receivers import latency_ms
from scripts.benchmarks.roles.senders import Senders
from scripts.benchmarks.system import HOST, NODES, SENDER, System

RATE = 100.0
"""Packets per second of steady traffic."""
LINGER_S = 0.1
HEALTHY = 3
BACKLOG = 20_000
"""Packets (4 MB) given to the stuck peer first: more than its kernel and any batch hold."""
WITH, WITHOUT = 1, 2
"""Senders, and their clusters: with the stuck peer among four nodes, and with a fourth that is
as healthy as the others."""


def warm(system: System, plan: Plan) -> dict[str, Any]:
    """Measure steady traffic of one sender."""
    _, sender = system.one_sender()
    with system.arrival_of(50 * NODES, "warm latency, warming up"):
        sender.call(Senders.paced, [SENDER], 50, RATE)
    system.record()
    packets = int(plan.paced_s * RATE)
    with system.arrival_of(packets * NODES, "warm latency"):
        sender.call(Senders.paced, [SENDER], packets, RATE)
    return {"latency_warm_ms": figures(system)}


def cold(system: System, plan: Plan) -> dict[str, Any]:
    """Measure the first packet after silence: each needs a new job and new connections.

    Many senders send once and fall silent. Then each sender sends again, one after the other,
    when the job of the sender before has ended.
    """
    system.settings = replace(system.settings, linger=LINGER_S)
    ids = list(range(1, plan.wakes + 1))
    for number in ids:
        system.provision(number, NODES)
    system.worker()
    sender = system.senders(*ids)
    with system.arrival_of(len(ids) * NODES, "cold latency, first packets"):
        sender.call(Senders.paced, ids, len(ids), RATE)
    system.record()
    for number in ids:
        system.wait_for_quiet(ids)
        with system.arrival_of(NODES, f"cold latency of sender {number}"):
            sender.call(Senders.paced, [number], 1, RATE)
    return {"latency_cold_ms": figures(system)}


def figures(system: System) -> dict[str, float]:
    """Return percentiles of the latencies since `System.record`, in ms, and their number."""
    arrivals = system.arrivals()
    return latency_ms(arrivals) | {"samples": len(arrivals)}


def stuck_peer(system: System, plan: Plan) -> dict[str, Any]:
    """Measure the p99 of three peers with a fourth stuck and with it healthy, in turns."""
    # A stuck peer fails after send_timeout; here it has to stay stuck.
    system.settings = replace(system.settings, send_timeout=60)
    p99: dict[int, list[float]] = {WITH: [], WITHOUT: []}
    packets = int(RATE * plan.paced_s / 2)
    with socket.socket() as stuck:
        system.provision(WITH, HEALTHY, ports=[_listen_only(stuck)])
        system.provision(WITHOUT, HEALTHY + 1)
        system.worker()
        child = system.senders(WITH, WITHOUT)
        with system.arrival_of(BACKLOG * HEALTHY, "backlog of the stuck peer"):
            child.call(Senders.batch, WITH, BACKLOG)
        with system.arrival_of(100 * (HEALTHY + 1), "first packets without a stuck peer"):
            child.call(Senders.batch, WITHOUT, 100)
        for _ in plan.turns():
            for sender, found in p99.items():
                system.record()
                receiving = HEALTHY if sender == WITH else HEALTHY + 1
                with system.arrival_of(packets * receiving, f"packets of sender {sender}"):
                    child.call(Senders.paced, [sender], packets, RATE)
                same = [one for one in system.arrivals() if one.node < HEALTHY]
                found.append(latency_ms(same)["p99"])
    beside, alone = median(p99[WITH]), median(p99[WITHOUT])
    return {"stuck_peer": {"p99_ms": beside, "p99_ms_without": alone, "ratio": beside / alone}}


def _listen_only(peer: socket.socket) -> int:
    """Let the kernel accept connections that no program reads; return the port."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    peer.bind((HOST, 0))
    peer.listen(16)
    port: int = peer.getsockname()[1]
    return port
