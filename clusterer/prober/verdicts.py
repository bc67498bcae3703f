"""Moves the verdict of a node: opens suspicions and concludes them."""

from __future__ import annotations

from clusterer.membership import Condition, Event, Node
from clusterer.membership.suspicions import Kind, Outcome, Suspicion, outcome
from clusterer.prober.place import Views
from clusterer.store import Cause, NodeStore
from clusterer.store.observing import REPORTED
from clusterer.store.paths import Observation
from clusterer.store.suspicions import Opened, SuspicionStore

PING_FAILED = "ping failed"
"""How the reason of a suspicion begins that a ping opened."""


class Verdicts:
    """What a prober and the probe job do with suspicions. Safe to share between threads."""

    def __init__(self, nodes: NodeStore, suspicions: SuspicionStore) -> None:
        self._nodes = nodes
        self._suspicions = suspicions

    def suspect(
        self,
        node: Node,
        *,
        asking: int | None,
        reason: str,
        by: str,
        views: Views,
        observation: tuple[int, Observation] | None = None,
    ) -> None:
        """Open a suspicion; if no other host is present, count the failure at once.

        The arguments are those of `SuspicionStore.open`.
        """
        opened = self._suspicions.open(
            node,
            Kind.SUSPECT,
            asking=asking,
            reason=reason,
            views=views,
            observation=observation,
        )
        if opened is Opened.ALONE:
            self._nodes.observe(node, _failure(node, reason), Cause(by, reason))

    def conclude(
        self, node: Node, suspicion: Suspicion, now_ms: int, by: str, reason: str = ""
    ) -> Outcome:
        """Do what a suspicion of ``node`` asks for at ``now_ms``; return what that is.

        ``reason``: why the node is not reached, if that is better known than by the suspicion.
        """
        key = node.cluster
        what = outcome(suspicion, now_ms)
        if what is Outcome.WIDEN:
            self._suspicions.widen(key, node.machine_id, suspicion)
        elif what is Outcome.NOTHING or (what is Outcome.FALL and not _falls(node)):
            self._nodes.end_suspicion(key, node.machine_id, suspicion)
        elif what is Outcome.FALL:
            event = _failure(node, suspicion.reason)
            self._nodes.observe(node, event, Cause(by, reason or suspicion.reason), suspicion)
        return what


def _falls(node: Node) -> bool:
    return node.condition in (Condition.UP, Condition.PROBING)


def _failure(node: Node, reason: str) -> Event:
    if node.condition is Condition.PROBING:
        return Event.PROBE_FAILED
    suspected = reason.startswith((PING_FAILED, REPORTED))
    return Event.SUSPECTED if suspected else Event.SEND_FAILED
