"""Senders that do not wait one by one: `post`, and tasks of an event loop."""

from __future__ import annotations

from statistics import median
from typing import Any

from scripts.benchmarks import paths
from scripts.benchmarks.measures.latency import RATE, figures
from scripts.benchmarks.paths import POST, Path, paired_ratio
from scripts.benchmarks.plan import Plan
from scripts.benchmarks.roles.senders import PER_CALL, Senders, Tasks
from scripts.benchmarks.system import NODES, SENDER, System

TASKS = 100


def post(system: System, plan: Plan) -> dict[str, Any]:
    """Measure one `post` per packet beside `send_many`, and the latency at a low rate."""
    _, child = started = system.one_sender()
    many, ours = (paths.ours(system, started, size) for size in (PER_CALL, POST))
    paths.in_turns(plan, (many, plan.batch_packets), (ours, plan.batch_packets))
    found = ours.figures() | {
        "vs_send_many": paired_ratio(ours.rates, many.rates),
        "send_many_deliveries_per_s": median(many.rates),
        "buffer_full": child.call(Senders.rejected, SENDER),
    }
    system.record()
    packets = int(plan.paced_s * RATE)
    with system.arrival_of(packets * NODES, "latency of post"):
        took = child.call(Senders.paced, [SENDER], packets, RATE, post=True)
    return {"post": found | {"latency_ms": figures(system), "call_us": median(took)}}


def aio(system: System, plan: Plan) -> dict[str, Any]:
    """Measure tasks that each await `send_to` in a loop, beside one blocking caller."""
    worker, _ = started = system.one_sender()
    tasks = system.child(Tasks, SENDER)
    one = paths.ours(system, started, 1)
    ours = Path("tasks", system, [worker, tasks], lambda n: tasks.call(Tasks.send, n, TASKS))
    paths.in_turns(plan, (one, plan.packets), (ours, plan.packets * 5))
    return {
        "aio": ours.figures()
        | {
            "vs_blocking": paired_ratio(ours.rates, one.rates),
            "blocking_deliveries_per_s": median(one.rates),
        }
    }
