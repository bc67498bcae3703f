"""Paths: whether one sender reaches one node. Pure values and functions; times are Redis ms.

Theory of operation. A *path* leads from one sender to one node. While packets arrive, a path has no
record, and is up. A failed attempt makes a record, which only this sender's own attempts and the
checks of its host change. The *gate* of a path says whether the sender sends: it is closed only if
an operator took the node down, or if the sender's own record is not up. The *verdict* is the state
that the node's hash has. No verdict closes a gate: a sender that reaches a node goes on sending,
whatever other senders see.

A record counts for one *epoch* of its node only, the time since the verdict last became up: when
the verdict becomes up, or an operator sets the node up, all senders try again. While the verdict is
not up, a record is frozen: no host checks the path, the rounds of the verdict decide.

The states are those of a node, with the node's ``failed_attempts`` and ``duration``. One thing
differs: after ``duration`` a check decides, so a path that stays broken makes no event.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from clusterer.ids import PROTO_BIN
from clusterer.membership.machine import Event
from clusterer.membership.node import Condition, Node, State

GRACE_MS = 5000
"""A record counts for ``duration`` and so much longer, unless a check renews it: the path of a
sender whose host runs no prober any more is tried again after that."""

SPREAD_MS = 2000
"""Checks of disabled paths begin up to so much, or a tenth of ``duration``, later:
half of a large cluster that is cut off from the other half does not check all at once."""


_NUMBER = r"(0|[1-9]\d{0,15})"
_RECORD = re.compile(
    rf"([12]) {_NUMBER} {_NUMBER} {_NUMBER} {_NUMBER}(?: (.+))?", re.ASCII | re.DOTALL
)
"""What `str` of a path gives: one text for each value, as texts are compared in Redis."""


@dataclass(frozen=True, slots=True)
class Path:
    """The record of one sender's path to one node: the node's address at one epoch."""

    state: State
    """UP (it failed lately, the count is kept) or PROBING."""
    no_tries: int
    """Failed attempts so far."""
    last_ms: int
    """Last failed attempt."""
    until_ms: int
    """The record is void from then on."""
    epoch: int
    """`Node.epoch` of the node when the attempt failed."""
    reason: str = ""
    """Why the last attempt failed, for people."""

    def condition(self, node: Node) -> Condition:
        """Up, probing or disabled, by the node's ``failed_attempts``."""
        if self.state is State.UP:
            return Condition.UP
        exhausted = self.no_tries >= node.failed_attempts
        return Condition.DISABLED if exhausted else Condition.PROBING

    def __str__(self) -> str:
        numbers = self.state, self.no_tries, self.last_ms, self.until_ms, self.epoch
        text = " ".join(str(int(number)) for number in numbers)
        return f"{text} {self.reason}" if self.reason else text

    @classmethod
    def parse(cls, text: str) -> Path:
        """Return what ``str(path)`` gave; anything else raises ValueError."""
        match = _RECORD.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is not 'state no_tries last until epoch reason'")
        state, no_tries, last_ms, until_ms, epoch = map(int, match.groups()[:5])
        return cls(State(state), no_tries, last_ms, until_ms, epoch, match[6] or "")


def is_void(path: Path, node: Node | None, now_ms: int) -> bool:
    """Whether a record says nothing any more: of another epoch, or not renewed in time.

    ``node`` is the node of the record's cluster, machine_id and generation; None if it is gone.
    A record says nothing about a row of another protocol, which may have the same numbers.
    """
    if node is None or node.protocol != PROTO_BIN or path.epoch != node.epoch:
        return True
    if node.state is State.PROBING:
        return False  # frozen
    longest_ms = node.duration * 1000 + GRACE_MS
    return not now_ms < path.until_ms <= now_ms + longest_ms + 1000


def gate(node: Node, path: Path | None, now_ms: int) -> bool:
    """Whether the sender with this record sends packets to the node."""
    if node.state is State.DOWN:
        return False
    return path is None or path.state is State.UP or is_void(path, node, now_ms)


def as_seen(node: Node, path: Path | None, now_ms: int) -> Node:
    """Return the node with the state and the failed attempts that the sender with this record sees.

    For a sender whose gate is open, that is the node itself.
    """
    if path is None or node.state is State.DOWN or gate(node, path, now_ms):
        return node
    return replace(
        node, state=path.state, no_tries=path.no_tries, last_attempt=path.last_ms // 1000
    )


Step = Callable[[Path, int], Path | None]
"""Function of a record and a time that returns the next record; None deletes the record."""


def _same(path: Path, now_ms: int) -> Path | None:
    return path


def _fail(path: Path, now_ms: int) -> Path | None:
    return replace(path, state=State.PROBING, no_tries=path.no_tries + 1, last_ms=now_ms)


def _stays_broken(path: Path, now_ms: int) -> Path | None:
    return replace(path, last_ms=now_ms)


def _recover(path: Path, now_ms: int) -> Path | None:
    return replace(path, state=State.UP)


def _forget(path: Path, now_ms: int) -> Path | None:
    return None


_UP, _PROBING, _DISABLED = Condition.UP, Condition.PROBING, Condition.DISABLED

PATH_TRANSITIONS: Mapping[tuple[Condition, Event], Step] = MappingProxyType(
    {
        (_UP, Event.SEND_FAILED): _fail,
        (_UP, Event.SUSPECTED): _fail,
        (_UP, Event.PROBE_FAILED): _same,
        (_UP, Event.PROBE_SUCCEEDED): _same,
        (_UP, Event.DURATION_ELAPSED): _forget,
        (_PROBING, Event.SEND_FAILED): _fail,
        (_PROBING, Event.SUSPECTED): _fail,
        (_PROBING, Event.PROBE_FAILED): _fail,
        (_PROBING, Event.PROBE_SUCCEEDED): _recover,
        (_PROBING, Event.DURATION_ELAPSED): _same,
        (_DISABLED, Event.SEND_FAILED): _same,
        (_DISABLED, Event.SUSPECTED): _same,
        (_DISABLED, Event.PROBE_FAILED): _stays_broken,
        (_DISABLED, Event.PROBE_SUCCEEDED): _forget,
        (_DISABLED, Event.DURATION_ELAPSED): _same,
    }
)
"""The effect of each event in each condition of a path. A missing pair raises KeyError."""


def observed(
    node: Node, path: Path | None, event: Event, now_ms: int, reason: str = ""
) -> Path | None:
    """Return the record after ``event`` at ``now_ms``; None if there is none any more.

    ``path`` is the record before it; one that is void counts as none. A record that the event
    does not change is returned as it is.
    """
    if path is None or is_void(path, node, now_ms):
        path = Path(State.UP, 0, now_ms, now_ms, node.epoch)
        if PATH_TRANSITIONS[Condition.UP, event] is not _fail:
            return None
    after = PATH_TRANSITIONS[path.condition(node), event](path, now_ms)
    if after is None or after == path:
        return after
    until_ms = now_ms + node.duration * 1000 + GRACE_MS
    return replace(after, until_ms=until_ms, reason=" ".join((reason or path.reason).split()))


def due_ms(node: Node, path: Path, probe_interval_s: float, spread: float = 0.0) -> int:
    """Return when the sender's host has to look at a record that is not void (Redis ms).

    A probing path is checked each ``probe_interval_s``, a disabled one ``duration`` seconds after
    the last failure and a bit (``spread``, 0 to 1, of `SPREAD_MS`); the count of one that is up
    again is forgotten then.
    """
    duration_ms = node.duration * 1000
    condition = path.condition(node)
    if condition is Condition.PROBING:
        return path.last_ms + int(probe_interval_s * 1000)
    if condition is Condition.DISABLED:
        return path.last_ms + duration_ms + int(spread * min(SPREAD_MS, duration_ms / 10))
    return path.last_ms + duration_ms
