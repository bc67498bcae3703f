"""Events of the audit streams as values: changes of nodes and of paths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

from clusterer.store.badvalues import bad, number, text


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
