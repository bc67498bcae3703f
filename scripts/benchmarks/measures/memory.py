"""A delivery worker's memory while a million packets wait for it."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

from scripts.benchmarks.children import memory_mb
from scripts.benchmarks.plan import Plan
from scripts.benchmarks.system import System

NODES = 4
FIRST = 20_000
BACKLOG = 1_000_000
WITHIN_S = 300.0


def memory(system: System, plan: Plan) -> dict[str, Any]:
    """Measure resident memory after some traffic, and its peak while the backlog is drained."""
    with system.scene(log_max_packets=2 * BACKLOG) as scene:
        scene.provision(1, NODES)
        worker, sender = scene.worker(), scene.senders(1)
        expected = scene.received() + FIRST * NODES
        sender.call("batch", sender=1, packets=FIRST)
        scene.wait_for(expected, "memory, first packets")
        before = memory_mb(worker.pid)
        worker.popen.send_signal(signal.SIGSTOP)
        sender.call("batch", sender=1, packets=BACKLOG)
        Path(f"/proc/{worker.pid}/clear_refs").write_text("5", encoding="ascii")  # resets VmHWM
        worker.popen.send_signal(signal.SIGCONT)
        scene.wait_for(expected + BACKLOG * NODES, "memory, backlog", WITHIN_S)
        peak = memory_mb(worker.pid, "VmHWM")
    return {
        "memory": {
            "backlog_packets": BACKLOG,
            "before_mb": round(before, 1),
            "peak_mb": round(peak, 1),
            "growth_mb": round(peak - before, 1),
        }
    }
