"""Alarms: the parts of the clusters that need the operator's attention, in words. Pure functions.

A word about a time is no part of an alarm's text: the alarm has the times themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

from clusterer.membership import Condition, NodeKey
from clusterer.services.live.node_rows import BEHIND_S, ClusterRows, Row
from clusterer.services.status.failures import Failure
from clusterer.store import ClusterKey

NAMED = 5
"""Most senders that an alarm names."""


class Severity(IntEnum):
    """Rank of an alarm: the highest comes first."""

    NOTE = 1
    """The state that an operator chose."""
    WARNING = 2
    """Packets to the node go some of the ways, or late."""
    ERROR = 3
    """Packets to the node are not delivered, or no process does a necessary work."""

    @property
    def word(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Alarm:
    """One part that needs attention."""

    severity: Severity
    text: str
    """Such as ``node 2 is disabled``."""
    reason: str = ""
    """Error of the connection, or reason that an operator gave; text from outside."""
    since: float | None = None
    """Time of the beginning, UNIX seconds; None if it is not known."""
    until: float | None = None
    """Time of the end that is known now, UNIX seconds."""
    until_text: str = ""
    """What happens then, such as ``back``."""
    advice: str = ""
    """Next action of the operator."""
    key: ClusterKey | None = None
    """The cluster; None for an alarm about all."""
    machine_id: int | None = None
    """The node; None for an alarm about no node."""

    def words(self, now: float) -> str:
        """Return the alarm at ``now`` (UNIX seconds): ``node 2 is disabled for 21 s: …``."""
        text = self.text
        if self.since is not None:
            text += f" for {max(0.0, now - self.since):.0f} s"
        if self.reason:
            text += f": {self.reason}"
        if self.until is not None:
            text += f"; {self.until_text} in {max(0.0, self.until - now):.0f} s"
        return text


def alarms(
    clusters: Iterable[ClusterRows], failures: Mapping[NodeKey, Failure], now: float
) -> list[Alarm]:
    """Return the alarms of all nodes: the most severe first, then by cluster and machine_id."""
    found = [
        alarm
        for cluster in clusters
        for row in cluster.rows
        if row.troubled
        for alarm in _of(row, failures.get(row.node.key, Failure()), now)
    ]
    return sorted(found, key=lambda each: (-each.severity, each.key or (), each.machine_id or 0))


def _of(row: Row, failure: Failure, now: float) -> Iterator[Alarm]:
    condition = row.node.condition
    if condition is Condition.DOWN:
        by = f" by {failure.by}" if failure.by else ""
        text = f"node {row.node.machine_id} is down, set{by}"
        yield _about(row, Severity.NOTE, text, reason=failure.reason, since=failure.since)
        return
    if condition is not Condition.UP:
        yield _failed(row, failure)
        return
    if row.broken:
        yield _unreached(row)
    if (row.oldest_s or 0.0) >= BEHIND_S:
        text = f"node {row.node.machine_id} is behind: {row.backlog} packets wait, the oldest"
        yield _about(row, Severity.WARNING, text, since=round(now - (row.oldest_s or 0.0)))
    yield from _muted(row, now)


def _failed(row: Row, failure: Failure) -> Alarm:
    node = row.node
    found = _about(
        row,
        Severity.ERROR,
        f"node {node.machine_id} is {node.condition.value}",
        reason=failure.reason,
        since=failure.since,
    )
    if node.condition is not Condition.DISABLED:
        return found
    return replace(found, until=float(node.enabled_at), until_text="back")


def _unreached(row: Row) -> Alarm:
    senders = [item.sender for item in row.broken]
    reasons = {item.path.reason for item in row.broken}
    noun, verb = ("sender", "does") if len(senders) == 1 else ("senders", "do")
    return _about(
        row,
        Severity.WARNING,
        f"{noun} {_listed(senders)} {verb} not reach node {row.node.machine_id}",
        reason=reasons.pop() if len(reasons) == 1 else "",
    )


def _muted(row: Row, now: float) -> Iterator[Alarm]:
    modules: dict[str, list[tuple[int, float]]] = {}
    for item in row.last_seen:
        if item.muted_s is not None:
            modules.setdefault(item.module, []).append((item.receiver, item.muted_s))
    for module, found in modules.items():
        by = _listed([receiver for receiver, _ in found])
        noun = "instance" if len(found) == 1 else "instances"
        text = f"node {row.node.machine_id} is muted for {module} by {noun} {by}"
        until = round(now + max(muted_s for _, muted_s in found))
        yield _about(row, Severity.WARNING, text, until=until, until_text="accepted again")


def _listed(machine_ids: Sequence[int]) -> str:
    named = ", ".join(map(str, machine_ids[:NAMED]))
    more = len(machine_ids) - NAMED
    return f"{named} and {more} more" if more > 0 else named


def _about(
    row: Row,
    severity: Severity,
    text: str,
    *,
    reason: str = "",
    since: float | None = None,
    until: float | None = None,
    until_text: str = "",
) -> Alarm:
    key, machine_id = row.node.key
    return Alarm(severity, text, reason, since, until, until_text, key=key, machine_id=machine_id)
