"""Suspicions: does any host reach this node? Pure values and functions; times are Redis ms.

Theory of operation. The verdict of a node leaves *up* only through a *suspicion* that no host
answered with an *ack*. A failed attempt opens one. A few probers are asked first, and the one that
asks; each connects to the node, and says ack or nack. If all of them say nack, or after
`WIDEN_MS`, all other probers are asked too: they say acks only. One ack ends the suspicion, and
lifts a verdict that has fallen. A prober without evidence stays silent.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from ipaddress import ip_address

from clusterer.membership.node import Node
from clusterer.membership.views import Views

FIRST_ASKED = 3
"""Probers that are asked at once, the asking one not counted."""

WIDEN_MS = 300
"""After so long without an ack all probers are asked."""

WINDOW_MS = 950
"""After so long without an ack the verdict falls."""

VOID_MS = 3000
"""A suspicion that is older, or lies in the future, is void: the next failure opens another."""

PRESENT_MS = 3000
"""A prober that has not said so for longer may be gone; it is asked after the others."""


EVIDENCE_MS = 2000
"""An ack must be said so soon after the attempt began: a process that was stopped knows nothing."""


class Kind(Enum):
    """Why a suspicion was opened."""

    SUSPECT = "suspect"
    """An attempt failed: silence confirms the failure."""
    PROBE = "probe"
    """A round of the probe job for a node that is not up: silence says nothing."""


class Outcome(Enum):
    """The next step of a suspicion."""

    KEEP = "keep"
    """A prober reached the node: the suspicion ends."""
    WAIT = "wait"
    WIDEN = "widen"
    """All other probers are to be asked."""
    FALL = "fall"
    """No prober reaches the node: the verdict counts a failure."""
    NOTHING = "nothing"
    """No prober knows: the suspicion ends without a change."""


_NUMBER, _IDS = r"(\d{1,16})", r"(-|\d{1,10}(?:,\d{1,10})*)"
_SUSPICION = re.compile(
    rf"{_NUMBER} {_NUMBER} (suspect|probe) {_IDS} {_IDS} ([01]) ([01])(?: (.*))?",
    re.ASCII | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Suspicion:
    """A suspicion as Redis has it, of one node."""

    since_ms: int
    """When it was opened, which is also its identity."""
    version: int
    """`Node.version` of the node then: of another version, the suspicion is void."""
    kind: Kind
    asked: frozenset[int]
    """machine_ids of the probers that were asked first; the asking one among them."""
    nacks: frozenset[int]
    """The asked probers that said nack."""
    all_asked: bool
    """Whether no other prober is present."""
    wide: bool = False
    """Whether all others were asked as well."""
    reason: str = ""
    """Why, for people."""

    def __str__(self) -> str:
        lists = (",".join(map(str, sorted(ids))) or "-" for ids in (self.asked, self.nacks))
        flags = int(self.all_asked), int(self.wide)
        words = (self.since_ms, self.version, self.kind.value, *lists, *flags, self.reason)
        return " ".join(map(str, words)).rstrip()

    @classmethod
    def parse(cls, text: str) -> Suspicion:
        """Return what ``str(suspicion)`` gave; anything else raises ValueError."""
        match = _SUSPICION.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is no suspicion")
        since_ms, version, kind, asked, nacks, all_asked, wide, reason = match.groups()
        return cls(
            int(since_ms),
            int(version),
            Kind(kind),
            _ids(asked),
            _ids(nacks),
            all_asked == "1",
            wide == "1",
            reason or "",
        )

    def is_void(self, version: int, now_ms: int) -> bool:
        """Whether the suspicion is void; ``version`` is the version of the node."""
        return version != self.version or not self.since_ms <= now_ms < self.since_ms + VOID_MS


def _ids(text: str) -> frozenset[int]:
    return frozenset() if text == "-" else frozenset(map(int, text.split(",")))


def outcome(suspicion: Suspicion, now_ms: int) -> Outcome:
    """Return what becomes of a suspicion to which no prober has said ack."""
    age_ms = now_ms - suspicion.since_ms
    if suspicion.asked and suspicion.nacks >= suspicion.asked:
        if suspicion.all_asked:
            return Outcome.FALL
        if not suspicion.wide:
            return Outcome.WIDEN
    if age_ms >= WINDOW_MS:
        if suspicion.nacks or suspicion.kind is Kind.SUSPECT:
            return Outcome.FALL
        return Outcome.NOTHING
    if age_ms >= WIDEN_MS and not suspicion.wide and not suspicion.all_asked:
        return Outcome.WIDEN
    return Outcome.WAIT


def elsewhere(node: Node, probers: Iterable[int], views: Views) -> frozenset[int]:
    """Return those of ``probers`` that are not on the node's own host.

    ``views``: all clusters. The addresses of loopback are those of one host.
    """
    own = _hosts(node.machine_id, views) | {_host(node)}
    others = (m for m in probers if m != node.machine_id)
    return frozenset(m for m in others if own.isdisjoint(_hosts(m, views)))


def _hosts(machine_id: int, views: Views) -> set[str]:
    rows = (view.nodes.get(machine_id) for view in views.values())
    return {_host(row) for row in rows if row is not None}


def _host(node: Node) -> str:
    return "loopback" if _is_loopback(node.host) else node.host


@lru_cache(maxsize=10_000)
def _is_loopback(host: str) -> bool:
    return ip_address(host).is_loopback


def choose_asked(
    probers: Mapping[int, int],
    *,
    asking: int | None,
    elsewhere: Collection[int],
    confirmed_by: int | None,
    now_ms: int,
    turn: int,
) -> tuple[frozenset[int], bool] | None:
    """Return which probers are asked first, and whether these are all; None if there is no other.

    ``probers``: machine_id of each present prober → when it last said so. ``asking``: the prober of
    the host whose attempt failed, None if the probe job asks. ``elsewhere``: the probers that are
    not on the node's own host. ``confirmed_by``: which prober reached the node last. ``turn``
    spreads the work over the probers (the cluster's version, say).
    """
    others = sorted(m for m in probers if m in elsewhere and m != asking)
    if not others:
        return None
    start = turn % len(others)
    turned = others[start:] + others[:start]
    order = sorted(turned, key=lambda m: (m != confirmed_by, now_ms - probers[m] > PRESENT_MS))
    first = frozenset(order[:FIRST_ASKED])
    asked = first | ({asking} if asking in probers and asking in elsewhere else frozenset())
    return frozenset(m for m in asked if m is not None), len(first) == len(others)
