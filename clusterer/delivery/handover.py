"""Releasing logs: when all packets are delivered and the log is idle, or because the job ends."""

from __future__ import annotations

import logging
from time import monotonic

from clusterer.delivery.closer import Closer
from clusterer.delivery.connector import Connector
from clusterer.delivery.context import Context
from clusterer.delivery.leases import Leases
from clusterer.delivery.peer_states import PeerState
from clusterer.delivery.session import SenderSession
from clusterer.runtime.logs import about_machine_id
from clusterer.store.deliveries import Released
from clusterer.store.format import FORMAT
from clusterer.store.log_reads import SenderUnusable

log = logging.getLogger(__name__)

IDLE_POLL_S = 0.25
"""Time between two looks for idle logs."""

GUARD_POLL_S = 0.02
"""Time between two looks at the closing guards of other workers."""


class Handover:
    """Releases leases, sets closing guards, and waits for the closing guards of other workers."""

    def __init__(
        self, context: Context, leases: Leases, connector: Connector, closer: Closer
    ) -> None:
        self._context = context
        self._store = context.store
        self._leases = leases
        self._connector = connector
        self._closer = closer
        self.idle_poll_at = self.guard_poll_at = 0.0
        """When the polls are due (monotonic seconds)."""

    def poll_idle(self) -> None:
        """Release the logs that have been idle for ``linger``, if a look is due."""
        now = monotonic()
        if now < self.idle_poll_at:
            return
        self.idle_poll_at = now + IDLE_POLL_S
        for session in self._leases:
            if now >= session.read_at + self._context.settings.linger:
                self._leases.renew()  # releases take time: no lease must run out
                if session in self._leases:
                    self._when_idle(session)

    def _when_idle(self, session: SenderSession) -> None:
        """Release the log if every peer has every packet."""
        session.settle()
        if session.recorder.reached() < session.groups.head or any(
            peer.state is PeerState.BLOCKED for peer in session.peers.values()
        ):
            return
        if self._release(session, even_if_pending=False) is Released.KEPT:
            self._take_over_guards([session])
        else:
            self._forget_gone([session])

    def release_misplaced(self, session: SenderSession) -> None:
        """Release a log whose sender has another address now."""
        self._release(session, even_if_pending=True)
        self._forget_gone([session])

    def release_unchanged(self, session: SenderSession, entry_id: bytes, entry_format: str) -> None:
        """Release a log unchanged: the next entry is for a worker of a newer version."""
        self._release(session, even_if_pending=True, trim=False)
        if self._leases.holds.add(session.sender, f"format {entry_format}"):
            log.error(
                "sender %s: log entry %s has format %s, this worker reads up to format %s: the log "
                "stays as it is; upgrade this worker",
                session.sender,
                entry_id.decode(),
                entry_format,
                FORMAT,
                extra=about_machine_id(session.sender, ()),
            )

    def release_all(self) -> bool:
        """Release all logs; True if a sender is still pending."""
        return self.release_each(list(self._leases))

    def release_each(self, sessions: list[SenderSession]) -> bool:
        """Release these logs, pending or not; True if a sender is still pending."""
        left = False
        for session in sessions:
            self._leases.renew()  # releases take time: no lease must run out
            try:
                if session in self._leases:
                    left |= self._release(session, even_if_pending=True) is Released.PENDING
            except SenderUnusable as error:
                self._leases.hold(error.sender, str(error))
        self._forget_gone(sessions)
        return left

    def _forget_gone(self, sessions: list[SenderSession]) -> None:
        """Forget nodes that were removed while this worker still recorded packets to them.

        This worker records no more packets of these sessions. So a node that was removed before
        this look stays forgotten; the component that removes a node later forgets the node itself.
        """
        self._context.directory.refresh()
        for session in sessions:
            self._store.forget(session.sender, session.members.not_in(self._context.views))

    def poll_guards(self) -> None:
        """Read the closing guards of other workers, if a look is due."""
        now = monotonic()
        if now < self.guard_poll_at:
            return
        self.guard_poll_at = now + GUARD_POLL_S
        guarded = list(self._context.agenda.guarded)
        if guarded:
            self._take_over_guards(guarded)

    def _take_over_guards(self, sessions: list[SenderSession]) -> None:
        found = self._store.guards([session.sender for session in sessions])
        for session, guards in zip(sessions, found, strict=True):
            session.end_guards(guards)

    def _release(
        self, session: SenderSession, *, even_if_pending: bool, trim: bool = True
    ) -> Released:
        used = trim or session.recorder.touched
        if used:
            self._leases.commit([session], trim=trim)
        if session not in self._leases:
            return Released.LOST
        still_open = [peer for peer in session.peers.values() if used and peer.connected]
        asked_at = monotonic()
        result = self._store.release(
            session.sender,
            session.recorder.reached(),
            session.recorder.needed_from() if trim else 0,
            {peer.destination: peer.acknowledged_offset() + 1 for peer in still_open},
            waiting=session.recorder.waiting(),
            even_if_pending=even_if_pending,
        )
        if result is Released.KEPT:
            return result
        if result is Released.LOST:
            self._leases.lose(session)
            return result
        self._leases.drop(session)
        if result is Released.PENDING:
            self._leases.note_released(session)
        for peer in still_open:
            self._connector.let_go(peer)
            peer.release()
        self._closer.take(session.sender, still_open, asked_at)
        self._connector.close_all(session, but=still_open)
        return result
