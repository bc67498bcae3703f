"""The observations of the demo, from the reports of the instances and from Redis."""

from __future__ import annotations

import json
import statistics
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from clusterer.cli.demo.instance import Report
from clusterer.membership import Condition, Node
from clusterer.processes import Line

EXPECTED_STATES = (Condition.UP, Condition.PROBING, Condition.DISABLED, Condition.UP)
_LOG_LINES = 8


@dataclass(slots=True)
class Observations:
    """All observations so far."""

    reports: dict[int, Report] = field(default_factory=dict)
    """The last report of each instance, by machine_id."""
    nodes: Mapping[int, Node] = field(default_factory=dict)
    """The nodes in Redis."""
    states: list[Condition] = field(default_factory=list)
    """The states of B, one after the other."""
    latencies_ms: list[float] = field(default_factory=list)
    replicated: set[tuple[int, int]] = field(default_factory=set)
    """(from, to) machine_ids of ratelimit counters seen in the pipe of the receiver."""
    packets_delivered: int = 0
    failure: str = ""
    logs: dict[str, deque[str]] = field(default_factory=dict)
    """The last log lines of each process."""

    def add_line(self, line: Line) -> None:
        """Add one line of a child to the observations."""
        if line.is_error or not line.text.startswith("{"):
            self.logs.setdefault(line.name, deque(maxlen=_LOG_LINES)).append(line.text)
            return
        report = Report(**json.loads(line.text))
        self.reports[report.machine_id] = report
        self.latencies_ms += report.took_ms
        self.replicated |= {
            (int(sender), report.machine_id) for sender, count in report.remote.items() if count > 0
        }

    def add_nodes(self, nodes: Mapping[int, Node], watched: int) -> None:
        """Add the nodes in Redis; ``watched`` is the node whose states the demo observes."""
        self.nodes = nodes
        condition = nodes[watched].condition
        if self.states[-1:] != [condition]:
            self.states.append(condition)

    def report_of(self, machine_id: int) -> Report:
        """Return the last report of an instance, an empty one if there is none."""
        return self.reports.get(machine_id, Report(machine_id))

    @property
    def latency_ms(self) -> float | None:
        """Median from send_to to the peer's callback; None without any packet."""
        return statistics.median(self.latencies_ms) if self.latencies_ms else None

    @property
    def complete(self) -> bool:
        """Whether the demo observed all its steps."""
        return (
            not self.failure
            and {(1, 2), (2, 1)} <= self.replicated
            and _contains(self.states, EXPECTED_STATES)
            and self.latency_ms is not None
            and self.packets_delivered > 0
        )

    def as_json(self, seconds: float) -> dict[str, Any]:
        """Return the object that --json prints."""
        latency = self.latency_ms
        return {
            "ok": self.complete,
            "replicated_a_to_b": (1, 2) in self.replicated,
            "replicated_b_to_a": (2, 1) in self.replicated,
            "states_seen": [condition.value for condition in self.states],
            "delivery_latency_ms": None if latency is None else round(latency, 3),
            "packets_delivered": self.packets_delivered,
            "seconds": round(seconds, 1),
            "failure": self.failure or None,
        }


def _contains(seen: list[Condition], wanted: tuple[Condition, ...]) -> bool:
    """Whether ``wanted`` was seen in this order; other states may lie between."""
    rest = iter(seen)
    return all(condition in rest for condition in wanted)
