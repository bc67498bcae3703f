"""What three peers notice of a fourth that accepts and never reads."""

from __future__ import annotations

import socket
from statistics import median
from typing import Any

from scripts.benchmarks.children import Child
from scripts.benchmarks.plan import Plan
from scripts.benchmarks.stats import percentile
from scripts.benchmarks.system import Scene, System

HEALTHY = 3
RATE = 100.0
BACKLOG = 20_000
"""Packets (4 MB) given to the stuck peer first: more than its kernel and any batch hold."""
WITH, WITHOUT = 1, 2
"""Senders, and their clusters: with the stuck peer among four nodes, and with a fourth that is
as healthy as the others."""


def stuck_peer(system: System, plan: Plan) -> dict[str, Any]:
    """Measure the three's p99 with the fourth stuck and with it healthy, in turns."""
    p99: dict[int, list[float]] = {WITH: [], WITHOUT: []}
    # A stuck peer fails after send_timeout; here it has to stay stuck.
    with system.scene(send_timeout=60) as scene, NeverReading() as port:
        scene.provision(WITH, HEALTHY, ports=[port])
        scene.provision(WITHOUT, HEALTHY + 1)
        scene.worker()
        child = scene.senders(WITH, WITHOUT)
        _send(scene, child, "batch", WITH, packets=BACKLOG)
        _send(scene, child, "batch", WITHOUT, packets=100)
        scene.shared.timed = True
        for _ in plan.turns():
            for sender, found in p99.items():
                scene.shared.clear()
                packets = int(RATE * plan.paced_s / 2)
                _send(scene, child, "paced", sender, senders=[sender], packets=packets, rate=RATE)
                found.append(
                    percentile(
                        [a.latency_ms for a in scene.shared.arrivals() if a.node < HEALTHY], 99
                    )
                )
    with_it, without = median(p99[WITH]), median(p99[WITHOUT])
    return {
        "stuck_peer": {
            "p99_ms": round(with_it, 3),
            "p99_ms_without": round(without, 3),
            "ratio": round(with_it / without, 2),
        }
    }


def _send(
    scene: Scene, child: Child, how: str, sender: int, *, packets: int, **more: object
) -> None:
    healthy = HEALTHY if sender == WITH else HEALTHY + 1
    before = scene.received()
    if how == "batch":
        more |= {"sender": sender}
    child.call(how, packets=packets, **more)
    scene.wait_for(before + packets * healthy, f"{how} of sender {sender}")


class NeverReading:
    """A peer whose kernel accepts connections and whose program does nothing."""

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.listen(16)

    def __enter__(self) -> int:
        port: int = self._socket.getsockname()[1]
        return port

    def __exit__(self, *error: object) -> None:
        self._socket.close()
