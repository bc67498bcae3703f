"""All 3.x clusters of an instance."""

from __future__ import annotations

from collections.abc import Collection

from clusterer.member.control import ClusterControl
from clusterer.member.link_writer import LinkWriter
from clusterer.membership.views import Views
from clusterer.runtime import forks
from clusterer.runtime.pace import DutyCycle
from clusterer.runtime.rounds import Rounds
from clusterer.settings import Settings
from clusterer.store.links import LinkStore

_PAUSES = 100
"""After the links were looked at, for as many times as that took they are not: 128 nodes take 8 ms,
a few nodes some microseconds."""


class Members:
    """The controls of an instance's 3.x clusters, see `clusterer.listener.companion.Companion`."""

    def __init__(self, settings: Settings, server_id: int) -> None:
        self.controls = {
            cluster_id: ClusterControl(cluster_id, server_id, settings.send_timeout)
            for cluster_id in sorted(settings.dialect3)
        }
        """By cluster_id."""
        self._links = LinkWriter(server_id, LinkStore(settings))
        self._rounds = Rounds("member")
        self._pace = DutyCycle()
        forks.renew_in_child(self)

    def turn(self, views: Views, addresses: Collection[tuple[str, int]], now: float) -> None:
        """Do the periodic work: four times a second, in the listener's loop."""
        for control in self.controls.values():
            with self._rounds.guard():
                control.turn(views.get(control.key), addresses, now)
        if self._pace.may_run():
            with self._rounds.guard(), self._pace.run(_PAUSES):
                self._links.report(
                    {place: link for each in self.controls.values() for place, link in each.links()}
                )

    def renew_in_child(self) -> None:
        """Let the connections be the parent's alone: nodes must see them end with the parent."""
        for control in self.controls.values():
            forks.abandon(control.descriptors())

    def leave(self) -> None:
        """Close the connections of all clusters; in the listener's loop."""
        for control in self.controls.values():
            control.leave()

    def stop(self) -> None:
        """End the thread that writes to Redis, and wait for it."""
        self._links.stop()
