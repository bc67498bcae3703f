"""Waiting until replicas of Redis have what was written: WAIT, in the round trip of the write."""

from __future__ import annotations

from clusterer.errors import StateUnavailable
from clusterer.store.channel import pack

WAIT_MS = 700
"""How long Redis waits for its replicas: less than a client waits for Redis."""


class Replicas:
    """How many replicas must have each write, and how many had the last one."""

    def __init__(self, wanted: int) -> None:
        self._wanted = wanted
        self.command = pack("WAIT", str(wanted), str(WAIT_MS))
        """The command that follows a write on the same connection."""
        self.got = wanted
        """Reply to it."""

    def shortage(self) -> StateUnavailable | None:
        """Return the error that fewer replicas have the last write than must; None if enough do."""
        if self.got >= self._wanted:
            return None
        return StateUnavailable(
            f"{self.got} of {self._wanted} replicas have the packet after {WAIT_MS / 1000:g} s: "
            "the packet may have been stored; look at the replicas, or lower wait_replicas"
        )
