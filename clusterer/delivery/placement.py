"""Which senders a delivery worker may deliver for now, and from which address."""

from __future__ import annotations

import logging
from time import monotonic

from clusterer.membership.views import ClusterKey, Views, node_in, rows_of
from clusterer.runtime.logs import about_machine_id
from clusterer.runtime.routes import is_local

log = logging.getLogger(__name__)

HOLD_S = 10.0
"""How long a worker holds a sender; then the worker tries again."""


def source_of(sender: int, key: ClusterKey, views: Views) -> str | None:
    """Return the IP of the sender's own row in a cluster, None if it has no row there."""
    node = node_in(key, sender, views)
    return node.host if node else None


class Placement:
    """Decides by the senders' addresses, and logs each refusal once."""

    def __init__(self, *, anywhere: bool) -> None:
        """``anywhere``: deliver also for senders whose address is not one of this host."""
        self._anywhere = anywhere
        self.refused: set[int] = set()
        """Senders that this worker may not deliver for."""
        self._rowless: set[int] = set()
        """Senders without a row, as logged."""

    def allows(self, sender: int, views: Views) -> bool:
        """Whether this worker may deliver for a sender."""
        if self._anywhere:
            return True
        rows = rows_of(sender, views)
        hosts = {node.host for node in rows}
        about = about_machine_id(sender, rows)
        if not hosts and sender not in self._rowless:
            self._rowless.add(sender)
            log.warning(
                "sender %s: no row in the table; nodes with a source check drop its packets",
                sender,
                extra=about,
            )
        if all(map(is_local, hosts)):
            self.refused.discard(sender)
            return True
        if sender not in self.refused:
            self.refused.add(sender)
            log.warning(
                "sender %s: not delivered by this worker: address %s is not one of this host; "
                "the packets wait for a delivery worker there",
                sender,
                ", ".join(sorted(hosts)),
                extra=about,
            )
        return False


class Holds:
    """Senders that the worker does not deliver for a while: their values in Redis are unusable."""

    def __init__(self) -> None:
        self._until: dict[int, float] = {}
        self._said: dict[int, str] = {}

    def __contains__(self, sender: int) -> bool:
        return monotonic() < self._until.get(sender, 0.0)

    def __bool__(self) -> bool:
        now = monotonic()
        return any(now < until for until in self._until.values())

    def add(self, sender: int, why: str) -> bool:
        """Hold a sender; True if the log does not have this reason yet."""
        self._until[sender] = monotonic() + HOLD_S
        known = self._said.get(sender) == why
        self._said[sender] = why
        return not known

    def end(self, sender: int) -> None:
        """Note that a sender's log was read again."""
        if self._said:
            self._until.pop(sender, None)
            self._said.pop(sender, None)
