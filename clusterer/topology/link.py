"""The own link to one node: what it is, and its state machine as one table.

Theory of operation. A link that restarts is pinged at the next tick (probing). While no PONG comes
(up), the ping is repeated every ``ping_timeout``, as often as the node's row says; then the link is
down. A link that is down is pinged ``node_timeout`` after its last ping, or at once when its node
pings. A link that is up is pinged when nothing came, or nothing was sent, for ``ping_interval``;
every packet of the node that comes after the ping answers it. Without an answer the link is
probing, and the ping is repeated in the same way. A PONG while the link restarts changes
nothing: otherwise a node that sends UNKNOWN_ID and PONG in turn would take the link up and down,
and have all others told, with each pair.

Source: docs/wire3.md, "Links".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from types import MappingProxyType
from typing import NamedTuple

PING_INTERVAL_S = 4.0
PING_TIMEOUT_S = 1.0
NODE_TIMEOUT_S = 60.0
"""Defaults of OpenSIPS's parameters ``ping_interval``, ``ping_timeout`` and ``node_timeout``."""


class LinkState(Enum):
    """State of a link, in the words of ``clusterer_list``."""

    UP = "up"
    PROBE = "probe"
    DOWN = "down"


class Phase(Enum):
    """State of the link's state machine."""

    RESTARTING = "restarting"
    """Pinged at the next tick."""
    PROBING = "probing"
    """Pinged; an answer is missing."""
    UP = "up"
    DOWN = "down"


class Event(Enum):
    """What can happen to a link."""

    PING_DUE = "ping due"
    UNANSWERED = "ping unanswered"
    RETRIES_USED = "retries used"
    """The ping is unanswered, and was repeated as often as the node's row says."""
    PINGED = "pinged"
    """The node sent a PING."""
    ANSWERED = "answered"
    """The node sent a PONG in time."""
    ANSWERED_LATE = "answered late"
    """The node sent a PONG more than ``ping_timeout`` after the ping, and nothing else lately."""
    SEND_FAILED = "send failed"
    REPORTED_UP = "reported up"
    """The node says that its link to us is up."""
    REPORTED_DOWN = "reported down"
    UNKNOWN_THERE = "unknown there"
    """The node does not know us."""
    REPLACED = "replaced"
    """The node's row has another address."""


_STATES = {
    Phase.RESTARTING: LinkState.PROBE,
    Phase.PROBING: LinkState.PROBE,
    Phase.UP: LinkState.UP,
    Phase.DOWN: LinkState.DOWN,
}


@dataclass(frozen=True, slots=True)
class Link:
    """The own link to a node. Times are those that the caller of `Topology` gave as ``now``."""

    phase: Phase
    since: float
    """When ``state`` became what it is."""
    pinged: float = float("-inf")
    """When the last ping was sent."""
    pings: int = 0
    """Pings sent since the link exists."""
    retries: int = 0
    """How often the unanswered ping was repeated."""

    @property
    def state(self) -> LinkState:
        """State for screens and for reachability."""
        return _STATES[self.phase]


Transition = Callable[[Link, float], Link]


def _same(link: Link, now: float) -> Link:
    return link


def _ping(link: Link, now: float) -> Link:
    return replace(link, pinged=now, pings=link.pings + 1)


def _probe(link: Link, now: float) -> Link:
    return _ping(_enter(link, Phase.PROBING, now), now)


def _retry(link: Link, now: float) -> Link:
    return replace(_probe(link, now), retries=link.retries + 1)


def _restart(link: Link, now: float) -> Link:
    return _enter(link, Phase.RESTARTING, now)


def _up(link: Link, now: float) -> Link:
    return _enter(link, Phase.UP, now)


def _down(link: Link, now: float) -> Link:
    return _enter(link, Phase.DOWN, now)


def _enter(link: Link, phase: Phase, now: float) -> Link:
    same = _STATES[phase] is link.state
    return replace(link, phase=phase, since=link.since if same else now, retries=0)


_RESTARTING, _PROBING, _UP, _DOWN = Phase

TRANSITIONS: Mapping[tuple[Phase, Event], Transition] = MappingProxyType(
    {
        (_RESTARTING, Event.PING_DUE): _probe,
        (_RESTARTING, Event.PINGED): _same,
        (_RESTARTING, Event.ANSWERED): _same,  # it answers no ping of this restart
        (_RESTARTING, Event.ANSWERED_LATE): _same,
        (_RESTARTING, Event.SEND_FAILED): _same,
        (_RESTARTING, Event.REPORTED_UP): _same,
        (_RESTARTING, Event.REPORTED_DOWN): _same,
        (_RESTARTING, Event.UNKNOWN_THERE): _same,
        (_RESTARTING, Event.REPLACED): _same,
        (_PROBING, Event.UNANSWERED): _retry,
        (_PROBING, Event.RETRIES_USED): _down,
        (_PROBING, Event.PINGED): _same,
        (_PROBING, Event.ANSWERED): _up,
        (_PROBING, Event.ANSWERED_LATE): _up,
        (_PROBING, Event.SEND_FAILED): _same,
        (_PROBING, Event.REPORTED_UP): _same,
        (_PROBING, Event.REPORTED_DOWN): _same,
        (_PROBING, Event.UNKNOWN_THERE): _restart,
        (_PROBING, Event.REPLACED): _restart,
        (_UP, Event.PING_DUE): _ping,
        (_UP, Event.UNANSWERED): _retry,
        (_UP, Event.RETRIES_USED): _down,
        (_UP, Event.PINGED): _same,
        (_UP, Event.ANSWERED): _same,
        (_UP, Event.ANSWERED_LATE): _same,
        (_UP, Event.SEND_FAILED): _restart,
        (_UP, Event.REPORTED_UP): _same,
        (_UP, Event.REPORTED_DOWN): _restart,
        (_UP, Event.UNKNOWN_THERE): _restart,
        (_UP, Event.REPLACED): _restart,
        (_DOWN, Event.PING_DUE): _probe,
        (_DOWN, Event.PINGED): _probe,
        (_DOWN, Event.ANSWERED): _up,
        (_DOWN, Event.ANSWERED_LATE): _same,
        (_DOWN, Event.SEND_FAILED): _same,
        (_DOWN, Event.REPORTED_UP): _restart,
        (_DOWN, Event.REPORTED_DOWN): _same,
        (_DOWN, Event.UNKNOWN_THERE): _restart,
        (_DOWN, Event.REPLACED): _restart,
    }
)
"""What each event does in each phase. A pair that cannot occur is missing and raises KeyError."""


def apply(link: Link, event: Event, now: float) -> Link:
    """Return what ``link`` becomes through ``event``. ``pings`` grows if a PING is to be sent."""
    return TRANSITIONS[link.phase, event](link, now)


class Limits(NamedTuple):
    """Times of all links of a cluster, in seconds."""

    ping_interval: float
    ping_timeout: float
    node_timeout: float


def due(  # noqa: PLR0917 - what is known of a link
    link: Link, now: float, limits: Limits, retries: int, sent: float, heard: float
) -> Event | None:
    """Return what time has done to ``link``, None if nothing.

    ``sent``, ``heard``: when the last packet to, and from, the node was sent. ``retries``: how
    often an unanswered ping is repeated.
    """
    since_ping = now - link.pinged
    if link.phase is Phase.RESTARTING:
        return Event.PING_DUE
    if link.phase is Phase.DOWN:
        return Event.PING_DUE if since_ping >= limits.node_timeout else None
    if link.phase is Phase.PROBING or heard < link.pinged:
        if since_ping < limits.ping_timeout:
            return None
        return Event.UNANSWERED if link.retries < retries else Event.RETRIES_USED
    return Event.PING_DUE if now - min(sent, heard) >= limits.ping_interval else None
