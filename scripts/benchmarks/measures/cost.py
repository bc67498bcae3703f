"""What a sender's lookups, a system without traffic and a backlog cost."""

from __future__ import annotations

import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from scripts.benchmarks.plan import Plan
from scripts.benchmarks.processes import cpu_s, memory_mb
from scripts.benchmarks.roles.senders import Senders
from scripts.benchmarks.system import FIRST_RECEIVER, NODES, SENDER, System
from tests.support.ports import free_port

CALLS = 50_000
FIRST = 20_000
BACKLOG = 1_000_000
BACKLOG_WITHIN_S = 300.0


def lookups(system: System, plan: Plan) -> dict[str, Any]:
    """Measure get_nodes and check, which the local snapshot answers."""
    system.provision(SENDER, NODES)
    sender = system.senders(SENDER)
    return {
        "get_nodes_us": sender.call(Senders.get_nodes, SENDER, CALLS),
        "check_us": sender.call(Senders.check, SENDER, FIRST_RECEIVER, CALLS),
    }


def idle(system: System, plan: Plan) -> dict[str, Any]:
    """Measure the CPU time of an instance, the workers, the scheduler and Redis."""
    system.provision(SENDER, NODES, own_port=free_port())
    kinds = ("delivery", "maintenance", "database")
    pids = {kind: system.process("workers", kind).pid for kind in kinds}
    pids["scheduler"] = system.process("scheduler").pid
    pids["node"] = system.process("clusterer", "node", server_id=SENDER).pid
    pids["redis"] = system.redis.pid
    time.sleep(plan.settle_s)
    before = {name: cpu_s(pid) for name, pid in pids.items()}
    time.sleep(plan.idle_s)
    percent = {name: (cpu_s(pid) - before[name]) / plan.idle_s * 100 for name, pid in pids.items()}
    system.require_alive()
    return {
        "idle_cpu_percent": sum(percent.values()),
        "idle_cpu_percent_by_process": percent,
    }


def memory(system: System, plan: Plan) -> dict[str, Any]:
    """Measure a worker's memory after some traffic, and its peak while it delivers a backlog."""
    system.settings = replace(system.settings, log_max_packets=2 * BACKLOG)
    worker, sender = system.one_sender()
    with system.arrival_of(FIRST * NODES, "memory, first packets"):
        sender.call(Senders.batch, SENDER, FIRST)
    before = memory_mb(worker.pid)
    with system.arrival_of(BACKLOG * NODES, "memory, backlog", BACKLOG_WITHIN_S):
        worker.popen.send_signal(signal.SIGSTOP)
        sender.call(Senders.batch, SENDER, BACKLOG)
        Path(f"/proc/{worker.pid}/clear_refs").write_text("5", encoding="ascii")  # resets VmHWM
        worker.popen.send_signal(signal.SIGCONT)
    peak = memory_mb(worker.pid, "VmHWM")
    return {
        "memory": {
            "backlog_packets": BACKLOG,
            "before_mb": before,
            "peak_mb": peak,
            "growth_mb": peak - before,
        }
    }
