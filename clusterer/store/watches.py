"""Registrations of modules, and what instances and the module timeout job exchange about them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum

from clusterer.store import keys

MAX_GAP_MS = 2_000
"""Longest gap between two heartbeats; after a longer gap the clocks of the instance restart."""

LISTENING_MS = 2 * MAX_GAP_MS
"""An instance with an older heartbeat does not listen, as far as Redis knows."""

LISTED_MS = 10_000
"""Time after which the registrations are listed again, whatever their counter says: an older
program does not count."""


@dataclass(frozen=True, slots=True)
class Watch:
    """One registration of a module in an instance, as Redis has it."""

    receiver: int
    """machine_id of the instance."""
    token: str
    """Name of the module; ``name#2`` for its second registration for the same cluster."""
    module: str
    cluster_id: int
    """0 for a registration without a cluster, which has no clocks."""
    timeout_ms: int
    """Silence after which a node times out; 0 means never."""

    @property
    def field(self) -> str:
        """Field of the registration in the instance's hash."""
        return f"{self.token}:{self.cluster_id}"

    @property
    def last_seen(self) -> str:
        """Key of the registration's clocks."""
        return keys.last_seen(self.receiver, self.token, self.cluster_id)

    @property
    def muted(self) -> str:
        """Key of the registration's muted nodes."""
        return keys.muted(self.receiver, self.token, self.cluster_id)

    @classmethod
    def parse(cls, receiver: int, field: str, timeout_ms: int) -> Watch:
        """Return the watch of a field of the instance's hash; raises ValueError for a bad field."""
        token, _, cluster_id = field.rpartition(":")
        if not cluster_id.isdecimal() or not cluster_id.isascii():
            raise ValueError(f"{field!r} is not module:cluster_id")
        return cls(receiver, token, token.partition("#")[0], int(cluster_id), timeout_ms)


@dataclass(frozen=True, slots=True)
class Reception:
    """The nodes last seen by a registration of an instance that listens. Times are Redis ms."""

    watch: Watch
    begun_ms: int
    """Time at which the instance began to listen."""
    last_seen_ms: Mapping[int, int]
    """machine_id → time of its last packet; a clock starts at the module's registration."""
    read_ms: int = 0
    """Time at which the store read these values."""

    def last_seen_at(self, machine_id: int) -> int:
        """Return the time at which a node was last seen; without a clock, the instance's start."""
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
    """The result of a flush; the script returns these numbers."""

    NOTED = 1
    UNKNOWN = 0
    """Redis has no registration: Redis lost its data, or a later run began and is gone."""
    REPLACED = -1
    """Another process began a later run of the same instance."""


@dataclass(frozen=True, slots=True)
class Flushed:
    """Reply to a flush."""

    state: FlushState
    now_ms: int
    """Redis TIME."""
    notices: tuple[Notice, ...]
    tailed_ms: int = 0
    """Milliseconds from now for which a capture of received packets is requested."""
    last_notice: str = "0-0"
    """Id of the last notice read, bad ones included."""
    unusable: tuple[str, ...] = ()
    """Keys of a wrong type, and empty sets of clocks."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict of the module timeout job on the nodes of one registration."""

    watch: Watch
    muted: tuple[int, ...]
    """machine_ids that were silent for too long."""
    released: tuple[int, ...]
    """machine_ids whose mute has ended."""
    next_ms: int = 0
    """Redis ms before which there is no further verdict on the registration."""

    def __bool__(self) -> bool:
        """Whether a node was muted, or a mute has ended."""
        return bool(self.muted or self.released)


class WatchPlan:
    """When the module timeout job looks at each registration of a listing next. For one thread.

    A look tells before which time no node of the registration can become silent, and no mute can
    end: clocks of nodes only go forward, and a new clock begins at the present time.
    """

    def __init__(self) -> None:
        self._due_ms: dict[Watch, int] = {}
        self._counter: bytes | None = None
        self._listed_ms = self._now_ms = -1

    def is_current(self, counter: bytes | None, now_ms: int) -> bool:
        """Whether the registrations are as they were listed, and the clock has not gone back.

        ``counter``: see `keys.REGISTRATIONS`; without one, registrations must be listed.
        """
        steady = self._now_ms <= now_ms < self._listed_ms + LISTED_MS
        return counter is not None and counter == self._counter and steady

    def replace(self, watches: Iterable[Watch], counter: bytes | None, now_ms: int) -> None:
        """Take the registrations as they were listed. One that is new is due at once, and all are
        if the clock has gone back.
        """
        known: Mapping[Watch, int] = self._due_ms if now_ms >= self._now_ms else {}
        self._due_ms = {watch: known.get(watch, now_ms) for watch in watches}
        self._counter, self._listed_ms = counter, now_ms

    def due(self, now_ms: int) -> list[Watch]:
        """Return the registrations that are due."""
        self._now_ms = now_ms
        return [watch for watch, at in self._due_ms.items() if at <= now_ms]

    def looked(self, watch: Watch, due_ms: int) -> None:
        """Note that a registration was looked at; it is due again at ``due_ms``."""
        self._due_ms[watch] = due_ms
