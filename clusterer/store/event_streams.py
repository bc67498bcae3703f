"""Streams of events, one per cluster_id: the past, newest event first, and what comes after."""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar

import redis

from clusterer.settings import Settings
from clusterer.store import keys
from clusterer.store.audit import AuditEvent, PathEvent
from clusterer.store.badvalues import blame, text
from clusterer.store.client import Store, translated

PAGE = 500
"""Events per round trip."""

BEGINNING = "0-0"


E = TypeVar("E", bound=AuditEvent)


class EventStreams(Store, Generic[E]):
    """The streams of one kind in one Redis. Every method raises `StateUnavailable`."""

    def __init__(
        self,
        settings: Settings,
        client: redis.Redis | None,
        key: Callable[[int], str],
        event: type[E],
    ) -> None:
        """``key``: the stream of a cluster_id; ``event``: the type of its events."""
        super().__init__(settings, client)
        self._key = key
        self._event = event

    def clusters(self) -> list[int]:
        """Return every cluster_id with a stream, also of clusters that do not exist any more."""
        pattern = re.compile(self._key(0).replace("0", r"([1-9]\d{0,9})"), re.ASCII)
        with translated(self._settings, "find the streams of events"):
            names = self._client.scan_iter(match=self._key(0).replace("0", "*"), count=1000)
            found = [pattern.fullmatch(text(name)) for name in names]
        return sorted({int(match[1]) for match in found if match})

    def ends(self, cluster_ids: Iterable[int]) -> dict[int, str]:
        """Return the id of the last event of each cluster, `BEGINNING` if there is none."""
        wanted = list(cluster_ids)
        if not wanted:
            return {}
        commands = [("xrevrange", self._key(number), "+", "-", 1) for number in wanted]
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
        return heapq.merge(*streams, key=_order, reverse=True)

    def newer(self, seen: Mapping[int, str], wait_s: float) -> list[E]:
        """Return what came after the ids in ``seen``, waiting at most ``wait_s`` for something.

        ``wait_s`` must stay below the client's time-out of one second; 0: do not wait.
        """
        streams: dict[Any, Any] = {self._key(number): last for number, last in seen.items()}
        with translated(self._settings, "follow the streams of events"):
            replies = self._read_new(streams, int(wait_s * 1000) or None)
        found = [
            self._decode(int(text(name).split(":")[1]), entry_id, data)
            for name, entries in replies
            for entry_id, data in entries
        ]
        return sorted(found, key=_order)

    def _decode(self, cluster_id: int, entry_id: bytes, data: Mapping[bytes, bytes]) -> E:
        return self._event.decode(self._key(cluster_id), cluster_id, entry_id, data)

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
            command = "xrevrange", self._key(cluster_id), last, str(since_ms), PAGE
            (entries,) = self._read(f"read the events of cluster {cluster_id}", command)
            for entry_id, data in entries:
                yield self._decode(cluster_id, entry_id, data)
            if len(entries) < PAGE:
                return
            last = "(" + text(entries[-1][0])


class AuditStore(EventStreams[AuditEvent]):
    """The events of nodes in one Redis. Every method raises `StateUnavailable`."""

    def __init__(self, settings: Settings, client: redis.Redis | None = None) -> None:
        super().__init__(settings, client, keys.events, AuditEvent)


class PathEvents(EventStreams[PathEvent]):
    """The events of paths in one Redis. Every method raises `StateUnavailable`."""

    def __init__(self, settings: Settings, client: redis.Redis | None = None) -> None:
        super().__init__(settings, client, keys.path_events, PathEvent)


def _order(event: AuditEvent) -> tuple[int, int]:
    ms, _, number = event.id.partition("-")
    return int(ms), int(number)
