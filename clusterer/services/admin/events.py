"""The events of the clusters, from the audit streams: past events, and new ones as they come."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import islice
from typing import Any, Generic, TypeVar

from clusterer.errors import InvalidArgument, StateUnavailable
from clusterer.runtime.logs import utc
from clusterer.runtime.stop import StopFlag
from clusterer.services.context import Context
from clusterer.store.audit import (
    AuditEvent,
    AuditStore,
    EventReader,
    EventStreams,
    PathEvent,
    PathEvents,
)

log = logging.getLogger(__name__)

WAIT_S = 0.5
"""Length of one wait for events; bounds the delay of a new cluster and of a stop request."""
RETRY_S = 0.5

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")


@dataclass(frozen=True, slots=True)
class Filter:
    """Selects events."""

    since: float = 0.0
    """Redis TIME, UNIX seconds."""
    cluster_id: int = 0
    """0: all."""
    machine_id: int = 0
    """0: all. Of paths: those from and to it."""

    def __contains__(self, event: AuditEvent) -> bool:
        return (
            self.cluster_id in (0, event.cluster_id)
            and (not self.machine_id or event.concerns(self.machine_id))
            and event.at >= self.since
        )


Since = Callable[[float], float]
"""Gets the present time and returns the time of the earliest events (both UNIX seconds)."""


def parse_since(text: str) -> Since:
    """Parse an age (``90s``, ``30m``, ``2h``, ``1d``, ``1w`` before now), or a date such as
    ``2026-11-22`` or ``2026-11-22 23:15`` (local time, or with an offset).

    Raises `InvalidArgument`.
    """
    text = text.strip()
    age = _AGE.fullmatch(text.lower())
    if age:
        seconds = float(age[1]) * _UNITS[age[2]]
        return lambda now: max(0.0, now - seconds)
    try:
        at = max(0.0, datetime.fromisoformat(text).timestamp())
    except (ValueError, OverflowError, OSError):
        raise InvalidArgument(
            f"{text!r} is neither an age such as 90s, 30m, 2h or 1d, nor a time such as "
            "'2026-11-22 23:15'"
        ) from None
    return lambda _now: at


E = TypeVar("E", bound=AuditEvent)


class History(Generic[E]):
    """Events of the clusters: `past` returns the past ones, `follow` continues from there."""

    def __init__(self, store: EventStreams[E], wanted: Filter) -> None:
        self._store = store
        self._reader = EventReader(store)
        self._wanted = wanted

    def past(self, last: int | None = None) -> list[E]:
        """Return the events, oldest first; only the last ``last`` of them if given.

        Raises `StateUnavailable`.
        """
        events = self._reader.past(self._clusters(), since_ms=int(self._wanted.since * 1000))
        found = list(islice((event for event in events if event in self._wanted), last))
        return found[::-1]

    def follow(self, stop: StopFlag) -> Iterator[E]:
        """Yield the events after `past`, until ``stop`` is set; wait while Redis is away."""
        away = False
        while not stop.is_set():
            try:
                events = self._next(stop)
            except StateUnavailable as error:
                if not away:
                    log.warning("events: waiting for Redis: %s", error)
                away = True
                stop.wait(RETRY_S)
                continue
            if away:
                log.warning("events: Redis is back")
            away = False
            yield from events

    def new(self, wait_s: float = 0.0) -> list[E]:
        """Return events after `past` and after the last call, oldest first, at most a page.

        Waits up to ``wait_s`` (below 1) for the first one. Raises `StateUnavailable`.
        """
        events = self._reader.new(self._clusters(), wait_s)
        return [event for event in events if event in self._wanted]

    def _next(self, stop: StopFlag) -> list[E]:
        events = self.new(WAIT_S)
        if not self._reader.seen:
            stop.wait(WAIT_S)
        return events

    def _clusters(self) -> list[int]:
        wanted = self._wanted.cluster_id
        return [wanted] if wanted else self._store.clusters()


def of_nodes(context: Context, wanted: Filter) -> History[AuditEvent]:
    """Return the changes of nodes."""
    return History(AuditStore(context.settings, context.redis), wanted)


def of_paths(context: Context, wanted: Filter) -> History[PathEvent]:
    """Return the changes of paths."""
    return History(PathEvents(context.settings, context.redis), wanted)


def as_json(event: AuditEvent) -> dict[str, Any]:
    """Return the event for JSON; ``time`` is UTC in ISO 8601, ``at`` is UNIX seconds."""
    return {"time": utc(event.at), "at": event.at, **asdict(event)}
