"""Answers suspicions: checks the nodes that a prober is asked about, says ack or nack, decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from math import inf
from time import monotonic
from zlib import crc32

from clusterer.membership import Node
from clusterer.membership.suspicions import WIDEN_MS, WINDOW_MS, Kind, Suspicion
from clusterer.membership.views import ClusterKey
from clusterer.prober.checks import Found
from clusterer.prober.context import Context

_Found = Mapping[ClusterKey, Mapping[int, Suspicion]]

BETWEEN_S = 0.1
"""Least time between two looks at the suspicions."""

_MARGIN_MS = 50
"""Time between the end of a check and the end of its suspicion."""

_LEAST_MS = 300
"""Least time of a check, also if the prober learned of the suspicion late."""

_BEHIND_MS = 100
"""Most by which this process's estimate of Redis's time is behind. A suspicion that is not further
in the future was opened just now."""

_SOON_MS = 5
"""Delay of a timer behind its time, because Redis's clock is known roughly."""


@dataclass(frozen=True, slots=True)
class _Case:
    """A suspicion of a node; ``since_ms`` tells it from later ones of the same node."""

    key: ClusterKey
    machine_id: int
    since_ms: int


def _turn_of(item: tuple[int, Suspicion]) -> int:
    """Order nodes differently in each round: a prober checks some 220 silent nodes a second."""
    machine_id, suspicion = item
    return crc32(f"{machine_id}/{suspicion.since_ms}".encode())


class Answers:
    """One prober's part in the suspicions of its clusters. For one thread."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._checked: dict[_Case, str] = {}
        """The cases with a check, each with the reason why the node was not reached."""
        self.next_at = 0.0
        """When `turn` has something to do (monotonic seconds)."""
        self._looked_at = -inf

    def rung(self) -> None:
        """Look soon: a suspicion may ask this prober."""
        self.next_at = min(self.next_at, self._looked_at + BETWEEN_S)

    def turn(self) -> None:
        """Look at the suspicions if it is time."""
        if monotonic() < self.next_at:
            return
        context = self._context
        self.next_at, self._looked_at = inf, monotonic()
        found = context.suspicions.all(context.viewpoint.clusters)
        if self._is_ahead(found):
            context.refresh()
        cases: set[_Case] = set()
        for key, suspicions in found.items():
            for machine_id, suspicion in sorted(suspicions.items(), key=_turn_of):
                case = _Case(key, machine_id, suspicion.since_ms)
                cases.add(case)
                self._consider(case, suspicion)
        self._checked = {case: why for case, why in self._checked.items() if case in cases}

    def _is_ahead(self, found: _Found) -> bool:
        """Whether a suspicion is of a later version of its node than the one known here."""
        viewpoint = self._context.viewpoint
        return any(
            (node := viewpoint.node(key, machine_id)) is None or node.version != suspicion.version
            for key, suspicions in found.items()
            for machine_id, suspicion in suspicions.items()
        )

    def _consider(self, case: _Case, suspicion: Suspicion) -> None:
        context = self._context
        node = context.viewpoint.node(case.key, case.machine_id)
        if node is None:
            return
        now_ms = context.now_ms
        if now_ms < suspicion.since_ms <= now_ms + _BEHIND_MS:
            now_ms = suspicion.since_ms
        if suspicion.is_void(node.version, now_ms):
            return
        asked = context.me in suspicion.asked
        wanted = (asked or suspicion.wide) and case not in self._checked
        if wanted and not self._is_silent(node, suspicion):
            self._checked[case] = ""
            left_ms = suspicion.since_ms + WINDOW_MS - _MARGIN_MS - context.now_ms
            context.checks.start(
                node,
                context.viewpoint.source(node),
                max(left_ms, _LEAST_MS) / 1000,
                partial(self._answer, case, node, suspicion),
                urgent=True,
            )
        if asked:
            self._decide(case, node, suspicion)

    def _is_silent(self, node: Node, suspicion: Suspicion) -> bool:
        """Whether the node is on this host, whose connect to its own node is no evidence.

        It is evidence if no other host was present to be asked.
        """
        alone = suspicion.all_asked and suspicion.asked == {self._context.me}
        return not alone and self._context.viewpoint.has(node.host)

    def _decide(self, case: _Case, node: Node, suspicion: Suspicion) -> None:
        """Take the next step of the suspicion that is due, and plan the next look."""
        context = self._context
        reason = self._checked.get(case, "") if suspicion.kind is Kind.PROBE else ""
        context.verdicts.conclude(node, suspicion, context.now_ms, context.by, reason)
        age_ms = context.now_ms - suspicion.since_ms
        for at_ms in (WIDEN_MS, WINDOW_MS):
            if age_ms < at_ms:
                at = monotonic() + (at_ms - age_ms + _SOON_MS) / 1000
                self.next_at = min(self.next_at, at)

    def _answer(self, case: _Case, node: Node, suspicion: Suspicion, found: Found) -> None:
        """Send an ack or a nack after a check; neither if the check is no evidence."""
        context = self._context
        if found.reached:
            # The check began after this prober had read the suspicion, whatever its clock says.
            began_ms = max(context.at_ms(found.began), suspicion.since_ms)
            context.suspicions.ack(node, context.me, context.by, began_ms=began_ms)
        elif found.reached is False and context.me in suspicion.asked:
            if context.viewpoint.has_lost(context.viewpoint.source(node)):
                return
            self._checked[case] = found.reason
            after = context.suspicions.nack(case.key, case.machine_id, suspicion, context.me)
            if after is not None:
                self._decide(case, node, after)
