"""When the module timeout job looks at each registration next: a tick looks at what is due only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from clusterer.store.watches import Watch

LISTED_MS = 10_000
"""Time after which the registrations are listed again, whatever their counter says: an older
program does not count."""


class WatchPlan:
    """The registrations as of one listing, each with the time of its next look. For one thread.

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
