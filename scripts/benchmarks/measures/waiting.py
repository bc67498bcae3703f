"""Senders that do not wait one by one: `post`, and tasks of an event loop."""

from __future__ import annotations

from statistics import median
from typing import Any

from scripts.benchmarks.measures.latency import NODES, RATE, figures
from scripts.benchmarks.paths import POST, SENDER, Path, paired_ratio, sending
from scripts.benchmarks.plan import Plan
from scripts.benchmarks.roles.senders import Senders, Tasks
from scripts.benchmarks.system import System

SIZE = 100
"""Packets in a call of `send_many`."""
TASKS = 100


def post(system: System, plan: Plan) -> dict[str, Any]:
    """Measure one `post` per packet beside `send_many`, and the latency at a low rate."""
    system.provision(SENDER, NODES)
    worker, child = system.worker(), system.senders(SENDER)
    many = Path("send_many", system, NODES, [worker, child], sending(child, SIZE))
    ours = Path("post", system, NODES, [worker, child], sending(child, POST))
    for path in (many, ours):
        path.warm_up(plan.batch_packets // 10)
    for _ in plan.turns():
        many.run(plan.batch_packets)
        ours.run(plan.batch_packets)
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
    system.provision(SENDER, NODES)
    worker, blocking = system.worker(), system.senders(SENDER)
    tasks = system.child(Tasks, SENDER)
    one = Path("one caller", system, NODES, [worker, blocking], sending(blocking, 1))
    ours = Path(
        "tasks",
        system,
        NODES,
        [worker, tasks],
        lambda packets: tasks.call(Tasks.send, packets, tasks=TASKS),
    )
    for path in (one, ours):
        path.warm_up(plan.packets // 10)
    for _ in plan.turns():
        one.run(plan.packets)
        ours.run(plan.packets * 5)
    return {
        "aio": ours.figures()
        | {
            "vs_blocking": paired_ratio(ours.rates, one.rates),
            "blocking_deliveries_per_s": median(one.rates),
        }
    }
