"""What instances and the timeout job tell each other about who was seen: plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from clusterer.store import keys

MAX_GAP_MS = 2_000
"""Longest time between two flushes after which silence still means silence."""

LISTENING_MS = 2 * MAX_GAP_MS
"""An instance whose heartbeat is older does not listen, as far as Redis knows."""


@dataclass(frozen=True, slots=True)
class Watch:
    """One registration of a module in an instance, as Redis knows it."""

    receiver: int
    """machine_id of the instance."""
    token: str
    """Name of the module; ``name#2`` for the second registration of it for the same cluster."""
    module: str
    cluster_id: int
    """0 for a registration without a cluster, which has no clocks."""
    timeout_ms: int
    """Silence after which a node times out; 0 means never."""

    @property
    def field(self) -> str:
        """Its field in the instance's hash."""
        return f"{self.token}:{self.cluster_id}"

    @property
    def last_seen(self) -> str:
        """Key of its clocks."""
        return keys.last_seen(self.receiver, self.token, self.cluster_id)

    @property
    def muted(self) -> str:
        """Key of its muted nodes."""
        return keys.muted(self.receiver, self.token, self.cluster_id)

    @classmethod
    def parse(cls, receiver: int, field: str, timeout_ms: int) -> Watch:
        """Return the watch of a field of the instance's hash; raises ValueError for another."""
        token, _, cluster_id = field.rpartition(":")
        if not cluster_id.isdecimal() or not cluster_id.isascii():
            raise ValueError(f"{field!r} is not module:cluster_id")
        return cls(receiver, token, token.partition("#")[0], int(cluster_id), timeout_ms)


@dataclass(frozen=True, slots=True)
class Reception:
    """What a registration of an instance that is listening has seen. Times are Redis ms."""

    watch: Watch
    begun_ms: int
    """When the instance began to listen."""
    last_seen_ms: Mapping[int, int]
    """machine_id → its last packet; a clock begins when the module is registered."""
    read_ms: int = 0
    """When this was read."""

    def last_seen_at(self, machine_id: int) -> int:
        """Return when a node was seen at the latest; without a clock, when listening began."""
        return self.last_seen_ms.get(machine_id, self.begun_ms)


@dataclass(frozen=True, slots=True)
class Notice:
    """A node timed out for a registration."""

    id: str
    token: str
    cluster_id: int
    machine_id: int
    muted_until_ms: int
    """Redis ms."""


class FlushState(IntEnum):
    """What became of a flush; the numbers are the script's."""

    NOTED = 1
    UNKNOWN = 0
    """Redis knows of no registration: it lost its data, or another run of ours that is gone."""
    REPLACED = -1
    """Another process began a run of the same instance later."""


@dataclass(frozen=True, slots=True)
class Flushed:
    """Reply to a flush."""

    state: FlushState
    now_ms: int
    """Redis TIME."""
    notices: tuple[Notice, ...]
    tailed_ms: int = 0
    """For how long from now the instance is asked to mirror what it receives."""
    last_notice: str = "0-0"
    """Id of the last notice read, one that cannot be understood included."""
    unusable: tuple[str, ...] = ()
    """Keys that hold another type than they have to, and sets of clocks that are empty."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the timeout job decided about one registration's nodes."""

    watch: Watch
    muted: tuple[int, ...]
    """machine_ids that were silent for too long."""
    released: tuple[int, ...]
    """machine_ids whose silence is over."""
