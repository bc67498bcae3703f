"""Reading the path events: which path changed its condition, when, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import redis

from clusterer.settings import Settings
from clusterer.store import keys
from clusterer.store.badvalues import bad, number, text
from clusterer.store.event_streams import EventStreams


@dataclass(frozen=True, slots=True)
class PathEvent:
    """One change of a path's condition."""

    id: str
    """Of the stream's entry: ``<Redis ms>-<number>``."""
    cluster_id: int
    protocol: str
    sender: int
    machine_id: int
    """The node to which the path leads."""
    url: str
    event: str
    """Name of the event, for example ``send failed``."""
    before: str
    """up, probing, disabled."""
    after: str
    reason: str
    """Why the attempt failed; empty if the path is up again."""
    by: str
    """Component that observed the path, for example ``delivery of machine 1``."""
    no_tries: int
    failed_attempts: int

    @property
    def at(self) -> float:
        """Redis TIME of the event, UNIX seconds."""
        return int(self.id.partition("-")[0]) / 1000

    def concerns(self, machine_id: int) -> bool:
        """Whether the path leads from or to ``machine_id``."""
        return machine_id in (self.sender, self.machine_id)


class PathEvents(EventStreams[PathEvent]):
    """The streams of path events of one Redis. Every method raises `StateUnavailable`."""

    def __init__(self, settings: Settings, client: redis.Redis | None = None) -> None:
        super().__init__(settings, client, keys.path_events, _decoded)


def _decoded(cluster_id: int, entry_id: bytes, fields: Mapping[bytes, bytes]) -> PathEvent:
    found = {text(name): value.decode("utf-8", "replace") for name, value in fields.items()}
    key, entry = keys.path_events(cluster_id), f"entry {text(entry_id)}"
    if not {"sender", "machine_id"} <= found.keys():
        bad(key, entry, found, "an event of a path")
    sender, machine_id, no_tries, failed_attempts = (
        number(key, f"{entry}, field {name}", found.get(name))
        for name in ("sender", "machine_id", "no_tries", "failed_attempts")
    )
    return PathEvent(
        id=text(entry_id),
        cluster_id=cluster_id,
        sender=sender,
        machine_id=machine_id,
        no_tries=no_tries,
        failed_attempts=failed_attempts,
        **{name: found.get(name, "") for name in _TEXTS},
    )


_TEXTS = ("protocol", "url", "event", "before", "after", "reason", "by")
