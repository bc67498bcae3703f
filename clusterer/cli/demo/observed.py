"""What was really seen: filled from the instances' own words and from Redis, judged at the end."""

from __future__ import annotations

import json
import statistics
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from clusterer.membership import Condition, Node
from clusterer.processes import Line

EXPECTED_STATES = (Condition.UP, Condition.PROBING, Condition.DISABLED, Condition.UP)
_LOG_LINES = 8


@dataclass(slots=True)
class Instance:
    """The last words of one instance."""

    own: int = 0
    """Its checks in the last whole interval."""
    remote: dict[int, int] = field(default_factory=dict)
    """Checks that it knows of other machines, by machine_id."""
    nodes: list[int] = field(default_factory=list)
    """What its get_nodes returns."""
    last_stamp: dict[int, int] = field(default_factory=dict)
    """machine_id → when the newest packet from there was sent, CLOCK_MONOTONIC ns."""


@dataclass(slots=True)
class Observed:
    """Everything seen so far."""

    instances: dict[int, Instance] = field(default_factory=dict)
    nodes: dict[int, Node] = field(default_factory=dict)
    """As Redis has them."""
    states: list[Condition] = field(default_factory=list)
    """B's, one after the other."""
    latencies_ms: list[float] = field(default_factory=list)
    replicated: set[tuple[int, int]] = field(default_factory=set)
    """(from, to) machine_ids of ratelimit counters seen in the other's pipe."""
    packets_delivered: int = 0
    failure: str = ""
    logs: dict[str, deque[str]] = field(default_factory=dict)
    """What each process logged last."""

    def hear(self, line: Line) -> None:
        """Take in one line of a child."""
        if line.is_error or not line.text.startswith("{"):
            self.logs.setdefault(line.name, deque(maxlen=_LOG_LINES)).append(line.text)
            return
        self._hear(json.loads(line.text))

    def _hear(self, said: dict[str, Any]) -> None:
        machine_id = said["machine"]
        instance = self.instances.setdefault(machine_id, Instance())
        if "took_ms" in said:
            self.latencies_ms.append(said["took_ms"])
            instance.last_stamp[said["from"]] = said["sent_ns"]
            return
        instance.own, instance.nodes = said["own"], said["nodes"]
        instance.remote = {int(sender): count for sender, count in said["remote"].items()}
        self.replicated |= {
            (sender, machine_id) for sender, count in instance.remote.items() if count > 0
        }

    def see(self, nodes: dict[int, Node], watched: int) -> None:
        """Take in the nodes as Redis has them; ``watched`` is the machine whose states count."""
        self.nodes = nodes
        condition = nodes[watched].condition
        if not self.states or self.states[-1] is not condition:
            self.states.append(condition)

    def forget(self, machine_id: int) -> None:
        """Forget what an instance said: it is another process from now on."""
        self.instances[machine_id] = Instance()

    @property
    def latency_ms(self) -> float | None:
        """Median from send_to to the peer's callback; None without any packet."""
        return statistics.median(self.latencies_ms) if self.latencies_ms else None

    @property
    def complete(self) -> bool:
        """Whether all that the demo promises was seen."""
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
    """Whether ``wanted`` was seen in this order, whatever came between."""
    rest = iter(seen)
    return all(condition in rest for condition in wanted)
