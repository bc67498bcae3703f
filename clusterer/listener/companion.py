"""Work beside the listener, in its event loop: the memberships in clusters of OpenSIPS 3.x."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from clusterer.listener.dialects import Control
from clusterer.listener.ports import Address
from clusterer.membership.views import Views


class Companion(Protocol):
    """A part of the instance that works in the listener's loop. Nothing here may block or raise."""

    @property
    def controls(self) -> Mapping[int, Control]:
        """By cluster_id: what takes the control packets of a cluster."""

    def turn(self, views: Views, addresses: Collection[Address], now: float) -> None:
        """Do periodic work: called four times a second.

        ``views``: the latest snapshot; ``addresses``: what is listened on; ``now``: monotonic.
        """

    def leave(self) -> None:
        """Close all connections, at the end of the loop."""

    def stop(self) -> None:
        """End threads, and wait for them; after the end of the loop."""


class Alone:
    """The companion of a listener without 3.x clusters: does nothing."""

    controls: Mapping[int, Control] = {}

    def turn(self, views: Views, addresses: Collection[Address], now: float) -> None:
        """Do nothing."""

    def leave(self) -> None:
        """Do nothing."""

    def stop(self) -> None:
        """Do nothing."""
