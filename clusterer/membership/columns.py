"""The three columns of a node that change while it runs, as one value."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import NamedTuple

from clusterer.membership.node import Condition, Node, State


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
        """Return what ``str(columns)`` gave; anything else raises ValueError."""
        state, no_tries, last_attempt = text.split(" ")
        found = cls(int(state), int(no_tries), int(last_attempt))
        if str(found) != text or State(found.state) is None:
            raise ValueError(f"{text!r} is not 'state no_tries last_attempt'")
        return found

    @classmethod
    def parse_all(cls, text: str) -> tuple[StateColumns, ...]:
        """Return what is in a list of ``str(columns)``, separated by commas; empty for none."""
        return tuple(cls.parse(item) for item in text.split(",") if item)

    def __str__(self) -> str:
        return f"{self.state} {self.no_tries} {self.last_attempt}"

    @property
    def named(self) -> str:
        """The columns with their names, for messages."""
        return ", ".join(f"{name} {value}" for name, value in self._asdict().items())

    def is_report(self, known: Collection[StateColumns]) -> bool:
        """Return whether another instance wrote this to the table, and no operator.

        ``known``: what the table was last known to hold. OpenSIPS 2.2 in persistent mode writes
        what it counts for itself: state 2, no_tries and last_attempt of a failure, and never the
        recovery. An operator sets a node up or down, and leaves the count or resets it to 0.
        """
        if self.state == State.PROBING:
            return True
        if self.state == State.DOWN or not self.no_tries:
            return False
        attempts = {0, *(columns.last_attempt for columns in known)}
        counts = {columns.no_tries for columns in known}
        return self.no_tries not in counts or self.last_attempt not in attempts

    def applied_to(self, node: Node) -> Node:
        """Return ``node`` with these columns; ValueError if there is no such state."""
        return replace(
            node,
            state=State(self.state),
            no_tries=self.no_tries,
            last_attempt=self.last_attempt,
        )


def as_loaded(row: Node, now: float) -> Node:
    """Return the node that a ``row`` of the table stands for at ``now`` (UNIX time, seconds).

    OpenSIPS 2.2 writes failures and never the recovery, and of the 64 bits of last_attempt it
    fills 32: a node is up whose time is over, or whose last failure is still to come. A row with
    state 2 and no failure is an operator's: the node is to be probed.
    """
    if row.last_attempt > now:
        row = replace(row, no_tries=0, last_attempt=0)
        return replace(row, state=State.UP) if row.state == State.PROBING else row
    failed = row.no_tries > 0 or row.condition is Condition.DISABLED
    if row.state == State.PROBING and failed and now >= row.enabled_at:
        return replace(row, state=State.UP, no_tries=0)
    return row
