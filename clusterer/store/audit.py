"""Events of nodes and of paths, and their streams: one per kind and cluster_id."""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from operator import attrgetter
from typing import Any, ClassVar, Generic, Self, TypeVar

import redis

from clusterer.store import keys
from clusterer.store.badvalues import bad, blame, number, scan, text
from clusterer.store.client import Store, translated

PAGE = 500
"""Events per round trip."""

SEARCHED = 10_000
"""Events of a cluster that `EventStreams.latest` searches."""

BEGINNING = "0-0"


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One change of a node."""

    NUMBERS: ClassVar[Sequence[str]] = ("machine_id", "no_tries", "failed_attempts")
    """The fields of an entry that are numbers; all others are texts."""
    REQUIRED: ClassVar[Sequence[str]] = ("machine_id",)
    KIND: ClassVar[str] = "an event of a node"

    id: str
    """Id of the stream's entry: ``<Redis ms>-<number>``."""
    cluster_id: int
    protocol: str
    machine_id: int
    url: str
    event: str
    """Name of the event, for example ``send failed`` or ``set down``."""
    by: str
    """Author of the change, for example ``probe`` or ``operator root@sip1``."""
    reason: str
    """Reason that the author of the change gave; may be empty."""
    before: str
    """State before: up, probing, disabled, down; absent for a node that was added."""
    after: str
    """State after: the same; absent for a node that was removed."""
    no_tries: int
    failed_attempts: int

    @property
    def at(self) -> float:
        """Redis TIME of the event, UNIX seconds."""
        return int(self.id.partition("-")[0]) / 1000

    @property
    def order(self) -> tuple[int, int]:
        """The place of the event among all events: Redis ms, and the number in this ms."""
        ms, _, number = self.id.partition("-")
        return int(ms), int(number)

    def concerns(self, machine_id: int) -> bool:
        """Whether the event is about the node ``machine_id``."""
        return machine_id == self.machine_id

    @classmethod
    def decode(
        cls, key: str, cluster_id: int, entry_id: bytes, data: Mapping[bytes, bytes]
    ) -> Self:
        """Return the event of an entry of the stream ``key``; report values that are unusable."""
        found = {
            name.decode("utf-8", "replace"): value.decode("utf-8", "replace")
            for name, value in data.items()
        }
        place = f"entry {text(entry_id)}"
        if not found.keys() >= set(cls.REQUIRED):
            bad(key, place, found, cls.KIND)
        values: dict[str, Any] = {
            name: number(key, f"{place}, field {name}", found.get(name)) for name in cls.NUMBERS
        }
        values |= {"id": text(entry_id), "cluster_id": cluster_id}
        names = (each.name for each in fields(cls))
        return cls(**{name: found.get(name, "") for name in names} | values)


@dataclass(frozen=True, slots=True)
class PathEvent(AuditEvent):
    """One change of the condition of a path: from ``sender`` to the node ``machine_id``."""

    NUMBERS: ClassVar[Sequence[str]] = (*AuditEvent.NUMBERS, "sender")
    REQUIRED: ClassVar[Sequence[str]] = ("machine_id", "sender")
    KIND: ClassVar[str] = "an event of a path"

    sender: int

    def concerns(self, machine_id: int) -> bool:
        """Whether the path leads from or to ``machine_id``."""
        return machine_id in (self.sender, self.machine_id)


E = TypeVar("E", bound=AuditEvent)


class EventStreams(Store, Generic[E]):
    """The streams of one kind in one Redis. Every method raises `StateUnavailable`."""

    key: Callable[[int], str]
    """The stream of a cluster_id."""
    event: type[E]
    """The type of its events."""

    def clusters(self) -> list[int]:
        """Return every cluster_id with a stream, also of clusters that do not exist any more."""
        pattern = re.compile(self.key(0).replace("0", r"([1-9]\d{0,9})"), re.ASCII)
        with translated(self._settings, "find the streams of events"):
            names = scan(self._client, self.key(0).replace("0", "*"))
            found = [pattern.fullmatch(name) for name in names]
        return sorted({int(match[1]) for match in found if match})

    def ends(self, cluster_ids: Iterable[int]) -> dict[int, str]:
        """Return the id of the last event of each cluster, `BEGINNING` if there is none."""
        wanted = list(cluster_ids)
        if not wanted:
            return {}
        commands = [("xrevrange", self.key(number), "+", "-", 1) for number in wanted]
        replies = self._read("read the streams of events", *commands)
        return {
            cluster_id: text(found[0][0]) if found else BEGINNING
            for cluster_id, found in zip(wanted, replies, strict=True)
        }

    def newest_first(self, ends: Mapping[int, str], *, since_ms: int = 0) -> Iterator[E]:
        """Yield the events of clusters up to the ids in ``ends``, in pages, newest first.

        ``since_ms``: Redis ms before which nothing is of interest.
        """
        streams = [self._backwards(*item, since_ms) for item in ends.items()]
        return heapq.merge(*streams, key=attrgetter("order"), reverse=True)

    def latest(self, cluster_ids: Iterable[int]) -> Iterator[E]:
        """Yield the events of clusters, newest first, `SEARCHED` for each cluster at most."""
        ends = self.ends(cluster_ids)
        return islice(self.newest_first(ends), SEARCHED * len(ends))

    def newer(self, seen: Mapping[int, str], wait_s: float) -> list[E]:
        """Return what came after the ids in ``seen``, waiting at most ``wait_s`` for something.

        ``wait_s`` must stay below the client's time-out of one second; 0: do not wait.
        """
        streams: dict[Any, Any] = {self.key(number): last for number, last in seen.items()}
        with translated(self._settings, "follow the streams of events"):
            replies = self._read_new(streams, int(wait_s * 1000) or None)
        found = [
            self._decode(int(text(name).split(":")[1]), entry_id, data)
            for name, entries in replies
            for entry_id, data in entries
        ]
        return sorted(found, key=attrgetter("order"))

    def _decode(self, cluster_id: int, entry_id: bytes, data: Mapping[bytes, bytes]) -> E:
        return self.event.decode(self.key(cluster_id), cluster_id, entry_id, data)

    def _read_new(self, streams: dict[Any, Any], block_ms: int | None) -> Any:
        """Read streams; without those of another type, should there be one."""
        try:
            return self._client.xread(streams, count=PAGE, block=block_ms)
        except redis.ResponseError:
            wrong = {each.key for each in blame(self._client, list(streams))}
            left = {name: last for name, last in streams.items() if name not in wrong}
            if not wrong:
                raise
            return self._client.xread(left, count=PAGE, block=block_ms) if left else []

    def _backwards(self, cluster_id: int, last: str, since_ms: int) -> Iterator[E]:
        while True:
            command = "xrevrange", self.key(cluster_id), last, str(since_ms), PAGE
            (entries,) = self._read(f"read the events of cluster {cluster_id}", command)
            for entry_id, data in entries:
                yield self._decode(cluster_id, entry_id, data)
            if len(entries) < PAGE:
                return
            last = "(" + text(entries[-1][0])


class AuditStore(EventStreams[AuditEvent]):
    """The events of nodes in one Redis. Every method raises `StateUnavailable`."""

    key = staticmethod(keys.events)
    event = AuditEvent


class PathEvents(EventStreams[PathEvent]):
    """The events of paths in one Redis. Every method raises `StateUnavailable`."""

    key = staticmethod(keys.path_events)
    event = PathEvent


class EventReader(Generic[E]):
    """Reads the events of clusters: first the past ones, then the new ones. For one thread.

    Every method raises `StateUnavailable`.
    """

    def __init__(self, streams: EventStreams[E]) -> None:
        self._streams = streams
        self.seen: dict[int, str] = {}
        """cluster_id → id of the last event that was read, or passed over."""

    def past(self, cluster_ids: Iterable[int], *, since_ms: int = 0) -> Iterator[E]:
        """Yield the past events of clusters, newest first; `new` continues from now on."""
        ends = self._streams.ends(cluster_ids)
        self.seen |= ends
        return self._streams.newest_first(ends, since_ms=since_ms)

    def new(self, cluster_ids: Iterable[int] = (), wait_s: float = 0.0) -> list[E]:
        """Return the events after the last call, oldest first; see `EventStreams.newer`.

        ``cluster_ids``: clusters to read from now on, those that are not known yet from their
        first event.
        """
        for cluster_id in cluster_ids:
            self.seen.setdefault(cluster_id, BEGINNING)
        if not self.seen:
            return []
        events = self._streams.newer(self.seen, wait_s)
        self.seen |= {event.cluster_id: event.id for event in events}
        return events
