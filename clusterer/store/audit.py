"""Reads the audit streams: the changes of nodes, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import redis

from clusterer.settings import Settings
from clusterer.store import keys
from clusterer.store.badvalues import bad, number, text
from clusterer.store.event_streams import BEGINNING, PAGE, EventStreams

__all__ = ["BEGINNING", "PAGE", "AuditEvent", "AuditStore"]


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

    def concerns(self, machine_id: int) -> bool:
        """Whether the event is about the node ``machine_id``."""
        return machine_id == self.machine_id


class AuditStore(EventStreams[AuditEvent]):
    """The audit streams of one Redis. Every method raises `StateUnavailable`."""

    def __init__(self, settings: Settings, client: redis.Redis | None = None) -> None:
        super().__init__(settings, client, keys.events, _decoded)


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
