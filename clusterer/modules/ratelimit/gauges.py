"""What was measured last on this machine, where the rules read it."""

from __future__ import annotations


class Gauges:
    """Shared by all pipes of an instance, written by its sampler only.

    Each field is replaced in one step: readers need no lock.
    """

    __slots__ = ("drop_rate", "queued_bytes")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Nothing is measured, yet or any more: nothing is refused for it."""
        self.drop_rate = 0.0
        """Percentage of checks that FEEDBACK refuses; 100 and more is all of them."""
        self.queued_bytes = 0.0
        """Bytes waiting in the sockets, for NETWORK."""
