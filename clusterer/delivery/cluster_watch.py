"""Follows the nodes of all clusters for a worker's sessions: added, changed, moved, removed."""

from __future__ import annotations

from time import monotonic

from clusterer.delivery.confirmations import Confirmations
from clusterer.delivery.connector import Connector
from clusterer.delivery.context import Context
from clusterer.delivery.failures import Failures
from clusterer.delivery.leases import Leases
from clusterer.delivery.placement import source_of
from clusterer.delivery.session import SenderSession
from clusterer.runtime.routes import is_local


class ClusterWatch:
    """Updates the sessions when nodes change, and connects peers from the sender's address."""

    def __init__(
        self,
        context: Context,
        leases: Leases,
        connector: Connector,
        failures: Failures,
        confirmations: Confirmations,
    ) -> None:
        self._context = context
        self._leases = leases
        self._connector = connector
        self._failures = failures
        self._confirmations = confirmations
        self._misplaced: set[SenderSession] = set()

    def refresh(self) -> None:
        """Read the clusters that have changed, and update all sessions."""
        self._context.directory.refresh()
        for session in self._leases:
            update = session.update(self._context.views)
            if update is None:
                continue
            for peer in update.peers:
                self._connector.close(peer)
            self._context.store.forget(session.sender, update.destinations)
            for peer in update.doubted:
                self._confirmations.doubt(session, peer, monotonic())
            if self._has_moved(session):
                self._misplaced.add(session)

    def refresh_after_failures(self) -> None:
        """Report the attempts that failed since the last time, and what has become of the nodes."""
        if self._failures and self._failures.report(self._leases.renew):
            self.refresh()

    def connect(self, session: SenderSession) -> None:
        """Open the connections that are due, each from the sender's address."""
        for peer in session.groups.behind:
            if peer.lacks_link and monotonic() >= peer.retry_at:
                source = source_of(session.sender, peer.key, self._context.views)
                if source is not None and not is_local(source):
                    if not self._context.settings.allow_foreign_source:
                        self._misplaced.add(session)  # the address has left this host
                        return
                    source = None
                self._connector.open(session, peer, source)
        self._context.agenda.note(session)

    def next_misplaced(self) -> SenderSession | None:
        """Return a session whose sender has another address, perhaps on another host."""
        while self._misplaced:
            session = self._misplaced.pop()
            if session in self._leases:
                return session
        return None

    def _has_moved(self, session: SenderSession) -> bool:
        """Whether a connection is from an address that the sender does not have any more."""
        views = self._context.views
        return any(
            peer.link is not None
            and peer.source not in (None, source_of(session.sender, peer.key, views))
            for peer in session.peers.values()
        )
