"""Packets per second: beside other ways, by threads and tasks, by number of nodes."""

from __future__ import annotations

from statistics import median
from typing import Any

from scripts.benchmarks import paths
from scripts.benchmarks.measures.latency import RATE, figures
from scripts.benchmarks.paths import POST, Path, paired_ratio
from scripts.benchmarks.plan import Plan
from scripts.benchmarks.processes import Child, Process
from scripts.benchmarks.roles.senders import PER_CALL, Senders, Tasks
from scripts.benchmarks.system import NODES, SENDER, System

THREADS_S = 1.5
TASKS = 100

NUMBERS = (1, 4, 16, 64)
"""Numbers of nodes that are compared."""
CALLS = 1000
BUSY_CALLS = 60
BUSY_RATE = 200.0
DELIVERIES = 200_000


def single(system: System, plan: Plan) -> dict[str, Any]:
    """Measure calls of `send_to`."""
    return {"single": _compare(system, plan, 1, plan.packets)}


def batch(system: System, plan: Plan) -> dict[str, Any]:
    """Measure calls of `send_many` with 100 packets."""
    return {"batch": _compare(system, plan, PER_CALL, plan.batch_packets)}


def _compare(system: System, plan: Plan, size: int, packets: int) -> dict[str, Any]:
    naive, limit = paths.naive(system), paths.limit(system, size)
    ours = paths.ours(system, system.one_sender(), size)
    naive.warm_up(5)
    limit.warm_up(packets // 10)
    ours.warm_up(packets // 10)
    for turn in plan.turns():
        limit.run(packets)
        ours.run(packets)
        if turn % 2 == 0:
            naive.run(plan.naive_packets)
    return ours.figures() | {
        "vs_naive": median(ours.rates) / median(naive.rates),
        "vs_limit": paired_ratio(ours.rates, limit.rates),
        "packets": packets,
        "limit": limit.figures(),
        "naive": naive.figures(),
    }


def threads(system: System, plan: Plan) -> dict[str, Any]:
    """Measure packets per second of one thread and of four, in turns."""
    _, sender = system.one_sender()
    sender.call(Senders.threads, SENDER, threads=1, seconds=0.2)
    rates: dict[int, list[float]] = {1: [], 4: []}
    for _ in plan.turns():
        for number, found in rates.items():
            found.append(sender.call(Senders.threads, SENDER, threads=number, seconds=THREADS_S))
    return {
        "threads": {
            "one_packets_per_s": median(rates[1]),
            "four_packets_per_s": median(rates[4]),
            "vs_one": paired_ratio(rates[4], rates[1]),
        }
    }


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


def nodes(system: System, plan: Plan) -> dict[str, Any]:
    """Measure the cost of a call and deliveries per second by number of nodes.

    The cost of a call is taken before a worker starts: with a worker that writes to 64 nodes on
    the same few cores, the cost would be the wait for a core. That is reported beside it.
    """
    # Cluster N has N nodes; one process sends to all of them.
    for number in NUMBERS:
        system.provision(number, number)
    child = system.senders(*NUMBERS)
    costs: dict[int, list[float]] = {number: [] for number in NUMBERS}
    with system.arrival_of(plan.rounds * CALLS * sum(NUMBERS), "first packets"):
        for _ in range(plan.rounds):
            for number, found in costs.items():
                found.extend(child.call(Senders.paced, [number], CALLS, rate=1e6))
        worker = system.worker()
    busy = {}
    for number in NUMBERS:
        with system.arrival_of(BUSY_CALLS * number, f"send_to to {number} nodes"):
            busy[number] = child.call(Senders.paced, [number], BUSY_CALLS, rate=BUSY_RATE)
    ways = {number: _to_nodes(system, worker, child, number) for number in NUMBERS}
    for _ in plan.turns():
        for number, way in ways.items():
            way.run(max(DELIVERIES // number, 10_000))
    return {
        "send_to_us": _medians(costs),
        "deliveries_per_s": _medians({number: way.rates for number, way in ways.items()}),
        "send_to_us_while_delivering": _medians(busy),
    }


def _to_nodes(system: System, worker: Process, child: Child[Senders], number: int) -> Path:
    """The way of the sender whose cluster has so many nodes."""
    return Path(
        f"{number} nodes",
        system,
        [worker, child],
        lambda n: child.call(Senders.batch, number, n),
        nodes=number,
    )


def _medians(samples: dict[int, list[float]]) -> dict[str, float]:
    return {str(number): median(found) for number, found in samples.items()}
