"""The console of one process: settings, the clients of the services, and what pages share."""

from __future__ import annotations

from collections.abc import Mapping

from clusterer.console.access.signing_key import signing_key
from clusterer.console.feed import Feed
from clusterer.runtime.once import once
from clusterer.services import Context
from clusterer.services.admin.event_feed import EventFeed
from clusterer.services.admin.inquiries import Listings
from clusterer.services.admin.shared_tail import SharedTails
from clusterer.services.doctor.shared_run import DoctorRuns
from clusterer.settings import Settings
from clusterer.store.captures import CaptureStore


class Console:
    """Made once per process; the argument of every `Page.load`, which runs in several threads."""

    def __init__(self, settings: Settings, origins: Mapping[str, str] | None = None) -> None:
        """``origins``: where the settings come from, see `clusterer.settings.sources`."""
        self.settings = settings
        self.origins = origins or {}

    @once
    def context(self) -> Context:
        """The clients with which pages and actions call the services."""
        return Context(self.settings)

    @once
    def captures(self) -> CaptureStore:
        """The instances of which packets can be captured."""
        return CaptureStore(self.settings)

    @once
    def tails(self) -> SharedTails:
        """Packets that instances received last."""
        return SharedTails(lambda: CaptureStore(self.settings))

    @once
    def listings(self) -> Listings:
        """What the observers of instances hold."""
        return Listings(self.context)

    @once
    def feed(self) -> Feed:
        """The present state of all clusters."""
        return Feed(self.context)

    @once
    def event_feed(self) -> EventFeed:
        """The newest events of all clusters."""
        return EventFeed(self.context)

    @once
    def doctor_runs(self) -> DoctorRuns:
        """The runs of the health check."""
        return DoctorRuns(self.settings)

    @once
    def key(self) -> bytes:
        """The key that signs cookies; `ClustererError` if its file cannot be used."""
        return signing_key(self.settings)

    def close(self) -> None:
        """End what runs in the background, and close the open connections."""
        for name in ("tails", "doctor_runs", "captures", "context"):
            if name in self.__dict__:
                getattr(self, name).close()
