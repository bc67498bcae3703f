"""A node of a cluster as every part of the system sees it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import NamedTuple

from clusterer.ids import MAX_ID, require_protocol


class ClusterKey(NamedTuple):
    """What identifies a cluster: one id may stand for several, one per protocol."""

    cluster_id: int
    protocol: str

    def __str__(self) -> str:
        return f"{self.cluster_id}:{self.protocol}"

    @classmethod
    def parse(cls, text: str) -> ClusterKey:
        """Return the key that ``str(key)`` gave; anything else raises ValueError."""
        cluster_id, _, protocol = text.partition(":")
        key = cls(int(cluster_id), protocol)
        if str(key) != text or not 1 <= key.cluster_id <= MAX_ID:
            raise ValueError(f"{text!r} is not cluster_id:protocol")
        require_protocol(protocol)  # raises a ValueError too
        return key


class State(IntEnum):
    """The ``state`` column of the provisioning table, with the guide's numbers."""

    DOWN = 0
    UP = 1
    PROBING = 2


class Condition(Enum):
    """What a node is to the state machine: its state, with 'probing' told from 'disabled'."""

    DOWN = "down"
    UP = "up"
    PROBING = "probing"
    DISABLED = "disabled"


NodeKey = tuple[ClusterKey, int]
"""What identifies a node: its cluster and its machine_id."""


@dataclass(frozen=True, slots=True)
class Node:
    """One row of the provisioning table, resolved, with its place in Redis."""

    id: int
    """Primary key of the row."""
    cluster_id: int
    machine_id: int
    url: str
    """As provisioned, for example ``bin:192.168.0.5:5566``."""
    protocol: str
    host: str
    """IP address that the URL's host resolved to."""
    port: int
    state: State = State.UP
    last_attempt: int = 0
    """UNIX time, in seconds, of the last failed attempt; 0 if there was none."""
    failed_attempts: int = 3
    """Failed attempts in a row that disable the node temporarily."""
    no_tries: int = 0
    """Failed attempts so far."""
    duration: int = 30
    """Seconds that the node stays temporarily disabled."""
    description: str = ""
    generation: int = 0
    """Redis time, in ms, when the node was added or got another address."""
    epoch: int = 0
    """Version at which the node was last set up, added, or became up again."""
    version: int = 0
    """Grows with every change; taken from a counter of the cluster, so never repeated."""

    @property
    def cluster(self) -> ClusterKey:
        """The node's cluster."""
        return ClusterKey(self.cluster_id, self.protocol)

    @property
    def key(self) -> NodeKey:
        """The node's cluster and machine_id."""
        return self.cluster, self.machine_id

    @property
    def row_key(self) -> tuple[int, int]:
        """The cluster_id and machine_id of the node's row: a machine_id has one row there."""
        return self.cluster_id, self.machine_id

    @property
    def destination(self) -> str:
        """The node as a destination; with another address it is another destination."""
        return f"{self.cluster_id}/{self.machine_id}/{self.generation}"

    @property
    def condition(self) -> Condition:
        """Down, up, probing or (temporarily) disabled."""
        # Compared by value: a plain 2 (read from somewhere, never made a State) must not be 'down'.
        if self.state == State.PROBING:
            exhausted = self.no_tries >= self.failed_attempts
            return Condition.DISABLED if exhausted else Condition.PROBING
        return Condition.UP if self.state == State.UP else Condition.DOWN

    @property
    def address(self) -> tuple[str, int]:
        """IP and port of the node's BIN listener."""
        return self.host, self.port

    @property
    def enabled_at(self) -> int:
        """UNIX time, in seconds, when the node is settled or enabled again."""
        return self.last_attempt + self.duration

    def enabled_in_s(self, now: float) -> int | None:
        """Return the seconds, 0 to ``duration``, until a disabled node is enabled; else None.

        More than ``duration`` would be left only if the clock was set back since the failure.
        """
        if self.condition is not Condition.DISABLED:
            return None
        return min(max(0, round(self.enabled_at - now)), self.duration)
