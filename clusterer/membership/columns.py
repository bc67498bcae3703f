"""The three columns of a node that change while it runs, as one value."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from clusterer.membership.node import Node, State


class StateColumns(NamedTuple):
    """What persistent mode writes to the table, and compares to notice an edit made there."""

    state: int
    no_tries: int
    last_attempt: int
    """UNIX time, in seconds."""

    @classmethod
    def of(cls, node: Node) -> StateColumns:
        """Return the three columns of ``node``."""
        return cls(int(node.state), node.no_tries, node.last_attempt)

    @classmethod
    def parse(cls, text: str) -> StateColumns:
        """Return what ``str(columns)`` gave; anything else raises ValueError, as a bug would."""
        state, no_tries, last_attempt = text.split(" ")
        return cls(int(state), int(no_tries), int(last_attempt))

    def __str__(self) -> str:
        return f"{self.state} {self.no_tries} {self.last_attempt}"

    def applied_to(self, node: Node) -> Node:
        """Return ``node`` with these columns; ValueError if there is no such state."""
        return replace(
            node,
            state=State(self.state),
            no_tries=self.no_tries,
            last_attempt=self.last_attempt,
        )
