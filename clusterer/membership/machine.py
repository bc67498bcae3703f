"""The node state machine: one table, read by one pure function.

Source: the guide's overview of probing and temporary disabling, and docs/architecture.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import Enum
from types import MappingProxyType

from clusterer.membership.node import Condition, Node, State


class Event(Enum):
    """What can happen to a node. The value is what the audit stream shows."""

    SEND_FAILED = "send failed"
    SUSPECTED = "suspected"
    """A module called set_state(…, 2)."""
    PROBE_FAILED = "probe failed"
    PROBE_SUCCEEDED = "probe succeeded"
    DURATION_ELAPSED = "duration elapsed"
    """``duration`` seconds have passed since the last failed attempt."""
    CONFIRMED = "confirmed"
    """A host reached the node while its verdict was not up."""
    SET_DOWN = "set down"
    SET_UP = "set up"


FAILURES = frozenset({Event.SEND_FAILED, Event.SUSPECTED, Event.PROBE_FAILED})
"""Events that report a fault of the node."""

Transition = Callable[[Node, float], Node]


def _same(node: Node, now: float) -> Node:
    return node


def _fail(node: Node, now: float) -> Node:
    return replace(node, state=State.PROBING, no_tries=node.no_tries + 1, last_attempt=int(now))


def _answered(node: Node, now: float) -> Node:
    return replace(node, state=State.UP)


def _restore(node: Node, now: float) -> Node:
    return replace(node, state=State.UP, no_tries=0)


def _elapse(node: Node, now: float) -> Node:
    # A failure in the future: the clock was set back. The wait since that failure is over.
    over = now >= node.enabled_at or now < node.last_attempt
    return _restore(node, now) if over else node


def _take_down(node: Node, now: float) -> Node:
    return replace(node, state=State.DOWN)


_DOWN, _UP, _PROBING, _DISABLED = Condition

TRANSITIONS: Mapping[tuple[Condition, Event], Transition] = MappingProxyType(
    {
        (_DOWN, Event.SEND_FAILED): _same,
        (_DOWN, Event.SUSPECTED): _same,
        (_DOWN, Event.PROBE_FAILED): _same,
        (_DOWN, Event.PROBE_SUCCEEDED): _same,
        (_DOWN, Event.DURATION_ELAPSED): _same,
        (_DOWN, Event.CONFIRMED): _same,
        (_DOWN, Event.SET_DOWN): _same,
        (_DOWN, Event.SET_UP): _restore,
        (_UP, Event.SEND_FAILED): _fail,
        (_UP, Event.SUSPECTED): _fail,
        (_UP, Event.PROBE_FAILED): _same,
        (_UP, Event.PROBE_SUCCEEDED): _same,
        (_UP, Event.DURATION_ELAPSED): _elapse,
        (_UP, Event.CONFIRMED): _same,
        (_UP, Event.SET_DOWN): _take_down,
        (_UP, Event.SET_UP): _restore,
        (_PROBING, Event.SEND_FAILED): _fail,
        (_PROBING, Event.SUSPECTED): _fail,
        (_PROBING, Event.PROBE_FAILED): _fail,
        (_PROBING, Event.PROBE_SUCCEEDED): _answered,
        (_PROBING, Event.DURATION_ELAPSED): _same,
        (_PROBING, Event.CONFIRMED): _answered,
        (_PROBING, Event.SET_DOWN): _take_down,
        (_PROBING, Event.SET_UP): _restore,
        (_DISABLED, Event.SEND_FAILED): _same,
        (_DISABLED, Event.SUSPECTED): _same,
        (_DISABLED, Event.PROBE_FAILED): _same,
        (_DISABLED, Event.PROBE_SUCCEEDED): _same,
        (_DISABLED, Event.DURATION_ELAPSED): _elapse,
        (_DISABLED, Event.CONFIRMED): _answered,
        (_DISABLED, Event.SET_DOWN): _take_down,
        (_DISABLED, Event.SET_UP): _restore,
    }
)
"""What each event does in each condition. A pair that is missing raises KeyError."""


def apply(node: Node, event: Event, now: float) -> Node:
    """Return what ``node`` becomes through ``event`` at ``now`` (UNIX time, seconds).

    A node that the event does not change is returned as it is (the same object or an equal one).
    """
    return TRANSITIONS[node.condition, event](node, now)


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
