"""Reads the audit streams: the changes of nodes, as values."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import redis

from clusterer.settings import Settings
from clusterer.store import keys
from clusterer.store.badvalues import bad, blame, number, read_all, text
from clusterer.store.client import connect, translated

PAGE = 500
"""Events per round trip."""

_EVENTS = re.compile(r"clusterer:([1-9]\d{0,9}):events", re.ASCII)

BEGINNING = "0-0"


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One change of a node."""

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


class AuditStore:
    """The audit streams of one Redis. Every method raises `StateUnavailable`."""

    def __init__(self, settings: Settings, client: redis.Redis | None = None) -> None:
        self._settings = settings
        self._client = client or connect(settings)

    def clusters(self) -> list[int]:
        """Return every cluster_id with a stream, also of clusters that do not exist any more."""
        with translated(self._settings, "find the audit streams"):
            names = self._client.scan_iter(match=_pattern(), count=1000)
            found = [_EVENTS.fullmatch(text(name)) for name in names]
        return sorted({int(match[1]) for match in found if match})

    def ends(self, cluster_ids: Iterable[int]) -> dict[int, str]:
        """Return the id of the last event of each cluster, `BEGINNING` if there is none."""
        wanted = list(cluster_ids)
        if not wanted:
            return {}
        with translated(self._settings, "read the audit streams"):
            replies = read_all(
                self._client,
                [("xrevrange", keys.events(number), "+", "-", 1) for number in wanted],
            )
        return {
            cluster_id: text(found[0][0]) if found else BEGINNING
            for cluster_id, found in zip(wanted, replies, strict=True)
        }

    def newest_first(self, ends: Mapping[int, str], *, since_ms: int = 0) -> Iterator[AuditEvent]:
        """Yield the events of clusters up to the ids in ``ends``, in pages, newest first.

        ``since_ms``: Redis ms of the earliest event.
        """
        streams = [self._backwards(*item, since_ms) for item in ends.items()]
        return heapq.merge(*streams, key=_order, reverse=True)

    def newer(self, seen: Mapping[int, str], wait_s: float) -> list[AuditEvent]:
        """Return the events after the ids in ``seen``; wait at most ``wait_s`` for the first.

        ``wait_s`` must stay below the client's time-out of one second.
        """
        streams: dict[Any, Any] = {keys.events(number): last for number, last in seen.items()}
        with translated(self._settings, "follow the audit streams"):
            replies = self._read_new(streams, int(wait_s * 1000))
        found = [
            _decoded(int(text(name).split(":")[1]), entry_id, fields)
            for name, entries in replies
            for entry_id, fields in entries
        ]
        return sorted(found, key=_order)

    def _read_new(self, streams: dict[Any, Any], block_ms: int) -> Any:
        """Read streams; leave out keys that hold another type."""
        try:
            return self._client.xread(streams, count=PAGE, block=block_ms)
        except redis.ResponseError:
            wrong = {each.key for each in blame(self._client, list(streams))}
            left = {name: last for name, last in streams.items() if name not in wrong}
            if not wrong:
                raise
            return self._client.xread(left, count=PAGE, block=block_ms) if left else []

    def _backwards(self, cluster_id: int, last: str, since_ms: int) -> Iterator[AuditEvent]:
        while True:
            with translated(self._settings, f"read the audit stream of cluster {cluster_id}"):
                (entries,) = read_all(
                    self._client,
                    [("xrevrange", keys.events(cluster_id), last, str(since_ms), PAGE)],
                )
            for entry_id, fields in entries:
                yield _decoded(cluster_id, entry_id, fields)
            if len(entries) < PAGE:
                return
            last = "(" + text(entries[-1][0])


def _pattern() -> str:
    return keys.events(0).replace("0", "*")


def _order(event: AuditEvent) -> tuple[int, int]:
    ms, _, number = event.id.partition("-")
    return int(ms), int(number)


def _decoded(cluster_id: int, entry_id: bytes, fields: Mapping[bytes, bytes]) -> AuditEvent:
    found = {
        name.decode("utf-8", "replace"): value.decode("utf-8", "replace")
        for name, value in fields.items()
    }
    key, place = keys.events(cluster_id), f"entry {text(entry_id)}, field"
    if "machine_id" not in found:
        bad(key, f"entry {text(entry_id)}", found, "an event of a node")
    machine_id, no_tries, failed_attempts = (
        number(key, f"{place} {name}", found.get(name))
        for name in ("machine_id", "no_tries", "failed_attempts")
    )
    return AuditEvent(
        id=text(entry_id),
        cluster_id=cluster_id,
        machine_id=machine_id,
        no_tries=no_tries,
        failed_attempts=failed_attempts,
        **{name: found.get(name, "") for name in _TEXTS},
    )


_TEXTS = ("protocol", "url", "event", "by", "reason", "before", "after")
