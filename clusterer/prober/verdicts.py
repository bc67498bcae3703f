"""Concludes suspicions: the verdict of a node moves, or the suspicion ends."""

from __future__ import annotations

from clusterer.membership import Condition, Event, Node
from clusterer.membership.suspicions import Outcome, Suspicion, outcome
from clusterer.store import Cause, NodeStore
from clusterer.store.observing import REPORTED
from clusterer.store.suspicions import SuspicionStore

PING_FAILED = "ping failed"
"""How the reason of a suspicion begins that a ping opened."""


class Verdicts:
    """What a prober and the probe job do with suspicions that are open."""

    def __init__(self, nodes: NodeStore, suspicions: SuspicionStore) -> None:
        self._nodes = nodes
        self._suspicions = suspicions

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
            event = failure(node, suspicion.reason)
            self._nodes.observe(node, event, Cause(by, reason or suspicion.reason), suspicion)
        return what


def _falls(node: Node) -> bool:
    return node.condition in (Condition.UP, Condition.PROBING)


def failure(node: Node, reason: str) -> Event:
    """Return the failure of a node that no host reaches; ``reason``: that of the suspicion."""
    if node.condition is Condition.PROBING:
        return Event.PROBE_FAILED
    suspected = reason.startswith((PING_FAILED, REPORTED))
    return Event.SUSPECTED if suspected else Event.SEND_FAILED
