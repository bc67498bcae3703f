"""Sums of the traffic: of all senders to a node, and of a sender to all nodes. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from clusterer.membership import NodeKey
from clusterer.services.status.traffic import Traffic
from clusterer.store import ClusterKey

Key = TypeVar("Key")


@dataclass(frozen=True, slots=True)
class _Sums:
    """Sums over pairs of sender and node."""

    sent: int
    failed: int
    skipped: int
    """Packets that were not sent because the path was not up."""
    lost: int
    """Packets trimmed from a log before the delivery."""
    backlog: int | None
    """Packets to deliver, counted once per node; None if the backlog of a pair is not known."""
    oldest_s: float | None
    """Age of the oldest packet to deliver; None without one."""
    last_delivered: str
    """Redis ms of the last delivery; empty if nothing was delivered yet."""


@dataclass(frozen=True, slots=True)
class ToNode(_Sums):
    """Packets of all senders to one node."""

    cluster_id: int
    protocol: str
    machine_id: int
    senders: int
    """Number of senders to the node."""

    @property
    def node_key(self) -> NodeKey:
        """What identifies the node."""
        return ClusterKey(self.cluster_id, self.protocol), self.machine_id


@dataclass(frozen=True, slots=True)
class FromSender(_Sums):
    """Packets of one sender to all nodes."""

    sender: int
    """machine_id of the sender."""
    nodes: int
    """Number of nodes to which the sender sent."""


def by_node(traffic: Iterable[Traffic]) -> list[ToNode]:
    """Return the sums for each node that has any traffic, by cluster and machine_id."""
    groups = _grouped(traffic, lambda item: (item.cluster_id, item.protocol, item.machine_id))
    return [
        ToNode(*_sums(items), *place, senders=len(items)) for place, items in sorted(groups.items())
    ]


def by_sender(traffic: Iterable[Traffic]) -> list[FromSender]:
    """Return the sums for each sender with traffic, by machine_id."""
    groups = _grouped(traffic, lambda item: item.sender)
    return [
        FromSender(*_sums(items), sender, nodes=len(items))
        for sender, items in sorted(groups.items())
    ]


def _grouped(
    traffic: Iterable[Traffic], key_of: Callable[[Traffic], Key]
) -> dict[Key, list[Traffic]]:
    groups: dict[Key, list[Traffic]] = {}
    for item in traffic:
        groups.setdefault(key_of(item), []).append(item)
    return groups


def _sums(
    items: Sequence[Traffic],
) -> tuple[int, int, int, int, int | None, float | None, str]:
    sent = failed = skipped = lost = 0
    for item in items:  # a million pairs are possible: one pass
        sent += item.sent
        failed += item.failed
        skipped += item.skipped
        lost += item.lost
    latest = max({item.last_delivered for item in items}, key=_ms)
    return sent, failed, skipped, lost, backlog(items), oldest_s(items), latest


class HasBacklog(Protocol):
    """A pair of sender and node."""

    @property
    def backlog(self) -> int | None: ...

    @property
    def oldest_s(self) -> float | None: ...


def backlog(items: Iterable[HasBacklog]) -> int | None:
    """Return the number of packets that wait; None if the backlog of a pair is not known."""
    return added(item.backlog for item in items)


def added(numbers: Iterable[int | None]) -> int | None:
    """Return the sum; None if a number is not known."""
    total = 0
    for number in numbers:
        if number is None:
            return None
        total += number
    return total


def oldest_s(items: Iterable[HasBacklog]) -> float | None:
    """Return the age of the oldest packet that waits, in seconds; None if none waits."""
    return max((item.oldest_s for item in items if item.oldest_s is not None), default=None)


def _ms(last_delivered: str) -> int:
    """Return a time in Redis ms; 0 for an empty text, or one that is no number."""
    return int(last_delivered) if last_delivered.isdecimal() else 0
