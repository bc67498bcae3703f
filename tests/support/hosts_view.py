"""What is sent, skipped and said in a cluster on several hosts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from clusterer.membership import Condition, Node
from clusterer.membership.paths import Path as Record
from clusterer.membership.paths import gate, is_void
from clusterer.services import Context
from clusterer.services.status import node_list
from tests.support.cluster import CLUSTER
from tests.support.processes import rounds, wait_until

Pair = tuple[int, int]
"""Sender and node, by machine_id."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Packets of one sender to one node."""

    sent: int = 0
    skipped: int = 0
    lost: int = 0
    backlog: int = 0

    @property
    def appended(self) -> int:
        return self.sent + self.skipped + self.lost + self.backlog

    def __sub__(self, other: Counts) -> Counts:
        return Counts(
            self.sent - other.sent,
            self.skipped - other.skipped,
            self.lost - other.lost,
            self.backlog - other.backlog,
        )


@dataclass(frozen=True, slots=True)
class Change:
    """A change of a node's verdict, or of a path, as the event streams have it."""

    at_ms: int
    sender: int
    """0 for a verdict."""
    machine_id: int
    before: str
    after: str
    reason: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment from which on `Hosts` tells what happened."""

    traffic: Mapping[Pair, Counts]
    at_ms: int


class HostsView:
    """A running cluster as Redis has it."""

    host_of: dict[int, str]
    """machine_id → host."""
    silent: frozenset[int]
    """Machines that send nothing."""
    context: Context
    client: Any
    """Of Redis; bytes."""

    @property
    def pairs(self) -> set[Pair]:
        """All pairs whose sender sends."""
        senders = self.host_of.keys() - self.silent
        return {(s, m) for s in senders for m in self.host_of if s != m}

    def between(self, hosts: Iterable[tuple[str, str]]) -> set[Pair]:
        """Return the pairs whose sender and node are on such two hosts, either way."""
        ends = {frozenset(two) for two in hosts}
        return {(s, m) for s, m in self.pairs if {self.host_of[s], self.host_of[m]} in ends}

    def now_ms(self) -> int:
        """Return Redis's time."""
        seconds, micros = self.client.time()
        return int(seconds) * 1000 + int(micros) // 1000

    def traffic(self) -> dict[Pair, Counts]:
        """Return the counts of all pairs."""
        found = node_list.run(self.context).traffic
        return {
            (t.sender, t.machine_id): Counts(t.sent, t.skipped, t.lost, t.backlog or 0)
            for t in found
        }

    def verdicts(self) -> dict[int, Condition]:
        """Return the condition of each node."""
        nodes = self.context.nodes.views()[CLUSTER].nodes
        return {machine_id: node.condition for machine_id, node in nodes.items()}

    def mark(self) -> Mark:
        """Return the present moment."""
        return Mark(self.traffic(), self.now_ms())

    def since(self, mark: Mark) -> dict[Pair, Counts]:
        """Return what was counted since then."""
        return {
            pair: now - mark.traffic.get(pair, Counts()) for pair, now in self.traffic().items()
        }

    def seconds_since(self, mark: Mark) -> float:
        """Return how long ago that was, by Redis's clock."""
        return (self.now_ms() - mark.at_ms) / 1000

    def verdict_changes(self, mark: Mark) -> list[Change]:
        """Return all changes of verdicts since then."""
        return self._read("clusterer:1:events", mark)

    def path_changes(self, mark: Mark) -> list[Change]:
        """Return all changes of paths since then."""
        return self._read("clusterer:1:pathevents", mark)

    def _read(self, key: str, mark: Mark) -> list[Change]:
        found = []
        for entry_id, fields in self.client.xrange(key, min=mark.at_ms):
            text = {name.decode(): value.decode() for name, value in fields.items()}
            found.append(
                Change(
                    int(entry_id.partition(b"-")[0]),
                    int(text.get("sender", 0)),
                    int(text["machine_id"]),
                    text.get("before", ""),
                    text.get("after", ""),
                    text.get("reason", ""),
                )
            )
        return [change for change in found if change.before != change.after]

    def closed(self) -> dict[Pair, str]:
        """Return why each path is closed that is; also of senders that send nothing."""
        now_ms = self.now_ms()
        return {
            (sender, node.machine_id): str(record)
            for sender, node, record in self._records()
            if not gate(node, record, now_ms)
        }

    def _records(self) -> Iterator[tuple[int, Node, Record]]:
        """Yield each sender's records with their nodes; also those that are void."""
        nodes = self.context.nodes.views()[CLUSTER].nodes
        for sender in self.host_of:
            records = self.client.hgetall(f"clusterer:paths:{sender}")
            for node in nodes.values():
                if text := records.get(node.destination.encode()):
                    yield sender, node, Record.parse(text.decode())

    def troubles(self) -> str:
        """Return all that is not as it is in a cluster without a fault; nothing: an empty text."""
        verdicts = {m: c.value for m, c in self.verdicts().items() if c is not Condition.UP}
        suspicions = self.client.hgetall("clusterer:1:bin:suspicions")
        closed = self.closed()
        what = {"verdicts": verdicts, "closed": closed, "suspicions": suspicions}
        return ", ".join(f"{name} {value}" for name, value in what.items() if value)

    def failed_tries(self) -> dict[Pair, int]:
        """Return the failed attempts that still count, also of nodes and paths that are up.

        A node or a path that is up again keeps the count for ``duration``; the next failure
        counts from there. Of sender 0: those of verdicts.
        """
        nodes, now_ms = self.context.nodes.views()[CLUSTER].nodes, self.now_ms()
        found = {(0, machine_id): node.no_tries for machine_id, node in nodes.items()}
        for sender, node, record in self._records():
            if not is_void(record, node, now_ms):
                found[sender, node.machine_id] = record.no_tries
        return {pair: tries for pair, tries in found.items() if tries}

    def wait_until_healthy(self) -> None:
        """Wait until all verdicts are up, and all paths open."""
        _wait_until_empty(self.troubles, "all is healthy")

    def wait_until_ready(self) -> None:
        """Wait until all senders send, and no failure of before counts any more.

        A sender may send before another host's listener is there: its attempt fails, and the node
        is up again with one failed try.
        """
        self.wait_until_sending()
        self.wait_until_healthy()
        _wait_until_empty(self.failed_tries, "no failed try counts")

    def wait_until_sending(self) -> None:
        """Wait until each sender has sent to each node for a second without a skipped packet."""
        wait_until(lambda: self.traffic().keys() >= self.pairs, message="all senders send")

        def steady() -> bool:
            mark = self.mark()
            for _ in rounds(1.0, 0.1):
                pass
            found = self.since(mark)
            return all(found[p].sent >= 2 and not found[p].skipped for p in self.pairs)

        wait_until(steady, message="all senders send without a skipped packet")


def _wait_until_empty(read: Callable[[], object], message: str) -> None:
    """Wait until ``read`` returns nothing; if that takes too long, the error has its value."""
    last: list[object] = [None]

    def empty() -> bool:
        last[0] = read()
        return not last[0]

    try:
        wait_until(empty, message=message)
    except TimeoutError as error:
        raise TimeoutError(f"{error}: {last[0]}") from None
