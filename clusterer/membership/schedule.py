"""When a node must be looked at next."""

from __future__ import annotations

from clusterer.membership.node import Condition, Node


def next_look(node: Node, now: float, probe_interval: float) -> float | None:
    """Return the UNIX time, in seconds, at which ``node`` is due, None if never.

    A probing node is due for its next ping, a disabled one for being enabled again, one that is
    up but has failed lately for being settled. ``last_attempt`` has whole seconds; one that
    lies in the running second counts as ``now``, so that no ``duration`` is cut short, and so does
    one that is still to come because the clock was set back.
    """
    condition = node.condition
    if condition is Condition.PROBING:
        return now + probe_interval
    if condition is Condition.DISABLED or (condition is Condition.UP and node.no_tries > 0):
        since = now if node.last_attempt >= int(now) else node.last_attempt
        return since + node.duration
    return None
