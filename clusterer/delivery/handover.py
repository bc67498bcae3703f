"""Giving logs back: when they are drained and idle, or because the job ends."""

from __future__ import annotations

import logging
from time import monotonic

from clusterer.delivery.agenda import Agenda
from clusterer.delivery.connector import Connector
from clusterer.delivery.drain import Drain
from clusterer.delivery.fencer import Fencer
from clusterer.delivery.leases import Leases
from clusterer.runtime.logs import about_machine
from clusterer.settings import Settings
from clusterer.store import Directory
from clusterer.store.deliveries import Released
from clusterer.store.drains import DrainStore
from clusterer.store.format import FORMAT
from clusterer.store.usable import SenderUnusable

log = logging.getLogger(__name__)

IDLE_POLL_S = 0.25
"""How often it is looked which logs are idle."""

FENCE_POLL_S = 0.02
"""How often it is looked whether another worker's fences are down."""


class Handover:
    """Releases leases, fences what is still closing, and waits for the fences of others."""

    def __init__(
        self,
        settings: Settings,
        store: DrainStore,
        leases: Leases,
        connector: Connector,
        fencer: Fencer,
        *,
        directory: Directory,
        agenda: Agenda,
    ) -> None:
        self._linger_s = settings.linger
        self._store = store
        self._leases = leases
        self._connector = connector
        self._fencer = fencer
        self._directory = directory
        self._agenda = agenda
        self.idle_poll_at = self.fence_poll_at = 0.0
        """When the polls are due (monotonic seconds)."""

    def poll_idle(self) -> None:
        """At the times when that is due, give back the logs to which nothing has come lately."""
        now = monotonic()
        if now < self.idle_poll_at:
            return
        self.idle_poll_at = now + IDLE_POLL_S
        for drain in self._leases:
            if now >= drain.read_at + self._linger_s and drain in self._leases:
                self._leases.renew()  # the last ones must not lose theirs meanwhile
                self._when_idle(drain)

    def _when_idle(self, drain: Drain) -> None:
        """Give the log back if everybody has everything."""
        drain.settle()
        if drain.reached() < drain.head or any(d.outbox for d in drain.destinations.values()):
            return
        if self._release(drain, undrained=False) is Released.KEPT:
            self._take_over_fences([drain])
        else:
            self._forget_gone([drain])

    def give_up(self, drain: Drain) -> None:
        """Give a log back that has to be gone on with from another address."""
        self._release(drain, undrained=True)
        self._forget_gone([drain])

    def leave(self, drain: Drain, entry_id: bytes, entry_format: str) -> None:
        """Give a log back as it is: the next entry is for a worker of a newer version."""
        self._release(drain, undrained=True, trim=False)
        if self._leases.holds.add(drain.sender, f"format {entry_format}"):
            log.error(
                "sender %s: log entry %s has format %s, this worker reads up to format %s: the log "
                "stays as it is; upgrade this worker",
                drain.sender,
                entry_id.decode(),
                entry_format,
                FORMAT,
                extra=about_machine(drain.sender, ()),
            )

    def all(self) -> bool:
        """Give all logs back; True if any has packets left."""
        return self.some(list(self._leases))

    def some(self, drains: list[Drain]) -> bool:
        """Give these logs back, drained or not; True if any has packets left."""
        left = False
        for drain in drains:
            self._leases.renew()  # the last ones must not lose theirs meanwhile
            try:
                if drain in self._leases:
                    left |= self._release(drain, undrained=True) is Released.UNDRAINED
            except SenderUnusable as error:
                self._leases.hold(error.sender, str(error))
        self._forget_gone(drains)
        return left

    def _forget_gone(self, drains: list[Drain]) -> None:
        """Forget nodes that went while packets to them were still recorded here.

        This worker records nothing any more (its fences are forgotten too). So what went before
        this look stays forgotten; what goes later is forgotten after it by whoever takes it away.
        """
        self._directory.refresh()
        for drain in drains:
            self._store.forget(drain.sender, drain.not_in(self._directory.snapshot))

    def poll_fences(self) -> None:
        """See, at the times when that is due, whether other workers' connections are closed."""
        now = monotonic()
        if now < self.fence_poll_at:
            return
        self.fence_poll_at = now + FENCE_POLL_S
        if self._agenda.fenced:
            self._take_over_fences(list(self._agenda.fenced))

    def _take_over_fences(self, drains: list[Drain]) -> None:
        found = self._store.fences([drain.sender for drain in drains])
        for drain, fences in zip(drains, found, strict=True):
            drain.unfence(fences)

    def _release(self, drain: Drain, *, undrained: bool, trim: bool = True) -> Released:
        used = trim or drain.touched
        if used:
            self._leases.commit([drain], trim=trim)
        if drain not in self._leases:
            return Released.LOST
        still_open = [
            d for d in drain.destinations.values() if used and d.link and d.link.connected
        ]
        result = self._store.release(
            drain.sender,
            drain.reached(),
            drain.needed_from() if trim else 0,
            {d.field: d.unacknowledged_from() + 1 for d in still_open},
            waiting=drain.waiting(),
            undrained=undrained,
        )
        if result is Released.KEPT:
            return result
        if result is Released.LOST:
            self._leases.lose(drain)
            return result
        self._leases.drop(drain)
        if result is Released.UNDRAINED:
            self._leases.gave(drain)
        for destination in still_open:
            self._connector.let_go(destination)
        self._fencer.take(drain.sender, still_open)
        self._connector.close_all(drain, but=still_open)
        return result
