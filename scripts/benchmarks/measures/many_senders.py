"""Many senders that share two delivery workers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from scripts.benchmarks.plan import Plan
from scripts.benchmarks.roles.receivers import Arrival, latency_ms
from scripts.benchmarks.roles.senders import Senders
from scripts.benchmarks.system import System

WORKERS = 2
PROCESSES = 2
"""Processes among which the senders are divided."""
WARM_UP_S = 2.0
STARVED_AFTER_MS = 1000.0
"""A sender is starved if one of its packets takes longer than this to a node."""
SHARED_CLUSTER = 1


@dataclass(frozen=True, slots=True)
class ManySenders:
    """The measurement of ``senders`` that send ``rate`` packets/s each to ``nodes``."""

    key: str
    senders: int
    rate: float
    nodes: int
    shared: bool = True
    """Whether all send to one cluster, or each to a cluster of its own: an instance reads all
    clusters when it starts, which takes too long for many."""

    def __call__(self, system: System, plan: Plan) -> dict[str, Any]:
        ids = range(1, self.senders + 1)
        cluster = SHARED_CLUSTER if self.shared else 0
        if cluster:
            system.provision(cluster, self.nodes, own_port=None)
        else:
            for number in ids:
                system.provision(number, self.nodes)
        for _ in range(WORKERS):
            system.worker()
        parts = [list(ids[number::PROCESSES]) for number in range(PROCESSES)]
        children = [(system.senders(*part, shared_cluster=cluster), part) for part in parts]

        def send(each: int, what: str) -> None:
            with system.arrival_of(each * len(ids) * self.nodes, what):
                for child, part in children:
                    child.begin(Senders.paced, part, each * len(part), self.rate * len(part))
                for child, _ in children:
                    child.answer()

        system.record()
        send(int(self.rate * WARM_UP_S), f"{self.key}, warming up")
        system.record()
        jobs = _jobs(system)
        packets = int(self.rate * plan.paced_s)
        send(packets, self.key)
        jobs = _jobs(system) - jobs
        return {
            self.key: figures(system.arrivals(), ids, self.nodes)
            | {
                "packets_each": packets,
                "duplicates": system.duplicates(),
                "jobs_per_s": jobs / plan.paced_s,
            }
        }


def figures(arrivals: Sequence[Arrival], ids: Iterable[int], nodes: int) -> dict[str, float]:
    """Return latencies, the packets of the slowest of the senders ``ids``, the starved senders."""
    share = Counter(one.sender for one in arrivals)
    late = {one.sender for one in arrivals if one.latency_ms > STARVED_AFTER_MS}
    return latency_ms(arrivals) | {
        "slowest_packets": min(share[number] for number in ids) / nodes,
        "starved": len(late),
    }


FIFTY = ManySenders("many_senders", 50, 20, nodes=4, shared=False)
TWO_HUNDRED = ManySenders("many_senders_200", 200, 5, nodes=10)
THOUSAND = ManySenders("many_senders_1000", 1000, 1, nodes=10)


def _jobs(system: System) -> int:
    """Return how many delivery jobs there have been so far; RQ keeps them for a minute."""
    queue = system.settings.delivery_queue
    pipe = system.client.pipeline()
    pipe.zcard(f"rq:finished:{queue}").zcard(f"rq:wip:{queue}").llen(f"rq:queue:{queue}")
    return sum(pipe.execute())
