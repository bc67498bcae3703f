"""The newest events of all clusters, read once for all viewers of the console."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter
from time import monotonic
from typing import Generic, TypeVar

from clusterer.services.admin.events import Filter, History, of_nodes, of_paths
from clusterer.services.context import Context
from clusterer.store.audit import AuditEvent, PathEvent

KEPT = 5_000
"""Events of each kind that the feed keeps: those of nodes, and those of paths."""
EVERY_S = 1.0
"""Shortest time between two reads of Redis."""

E = TypeVar("E", bound=AuditEvent)


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Selects events for a viewer."""

    place: Filter = field(default_factory=Filter)
    paths: bool | None = None
    """True: events of paths only; False: of nodes only."""
    text: str = ""
    """Text that the event contains, in upper or lower case: in its URL, name, author or reason."""

    def __contains__(self, event: AuditEvent) -> bool:
        if event not in self.place:
            return False
        if self.paths is not None and self.paths != isinstance(event, PathEvent):
            return False
        wanted = self.text.casefold()
        return not wanted or any(wanted in each.casefold() for each in _texts(event))


@dataclass(frozen=True, slots=True)
class Events:
    """The events that one viewer selects."""

    events: tuple[AuditEvent, ...]
    """Newest first."""
    selected: int
    """Events in the feed that the filter selects; more than ``events`` has if it is cut."""
    kept: int
    """Events in the feed."""
    more: bool
    """Whether Redis may have older events than the feed."""


class EventFeed:
    """The newest events of one Redis. Safe to use from any thread."""

    def __init__(self, context: Context) -> None:
        everything = Filter()
        self._nodes = _Stream(lambda: of_nodes(context, everything))
        self._paths = _Stream(lambda: of_paths(context, everything))
        self._lock = threading.Lock()
        self._read_at = -EVERY_S

    def view(self, wanted: EventFilter, last: int = KEPT) -> Events:
        """Return the newest ``last`` events that ``wanted`` selects.

        Reads Redis at most once a second, whatever the number of viewers. Raises
        `StateUnavailable`.
        """
        with self._lock:
            if monotonic() - self._read_at >= EVERY_S:
                self._nodes.read()
                self._paths.read()
                self._read_at = monotonic()
            kept: list[AuditEvent] = [*self._nodes.events, *self._paths.events]
            more = self._nodes.is_full or self._paths.is_full
        selected = (event for event in kept if event in wanted)
        found = sorted(selected, key=attrgetter("order"), reverse=True)
        return Events(tuple(found[:last]), selected=len(found), kept=len(kept), more=more)


class _Stream(Generic[E]):
    """The newest events of one kind."""

    def __init__(self, history: Callable[[], History[E]]) -> None:
        self._make = history
        self._history: History[E] | None = None
        self.events: deque[E] = deque(maxlen=KEPT)

    @property
    def is_full(self) -> bool:
        return len(self.events) == KEPT

    def read(self) -> None:
        """Add the events since the last call; the first call reads the past ones."""
        if self._history is None:
            history = self._make()
            self.events.extend(history.past(KEPT))
            self._history = history
        else:
            self.events.extend(self._history.new())


def _texts(event: AuditEvent) -> tuple[str, ...]:
    return event.url, event.event, event.by, event.reason, event.before, event.after
