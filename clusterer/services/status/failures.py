"""Since when nodes are not up, and why: from the events of the nodes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from clusterer.membership import FAILURES, Condition, Node, NodeKey
from clusterer.services.context import Context
from clusterer.store import ClusterKey
from clusterer.store.audit import AuditEvent, AuditStore

_FAILURES = frozenset(event.value for event in FAILURES)


@dataclass(frozen=True, slots=True)
class Failure:
    """The state of a node that is not up."""

    since: float | None = None
    """Time at which the node got its state, UNIX seconds; None if Redis has that event no longer.
    """
    reason: str = ""
    """Error of the last failed attempt, or the reason that the operator gave."""
    by: str = ""
    """Author of the change to the state."""


def read(context: Context, nodes: Iterable[Node]) -> dict[NodeKey, Failure]:
    """Return the state of each of ``nodes`` that is not up. Raises `StateUnavailable`."""
    wanted = {node.key: node for node in nodes if node.condition is not Condition.UP}
    found = dict.fromkeys(wanted, Failure())
    store = AuditStore(context.settings, context.redis)
    for event in store.latest({key.cluster_id for key, _ in wanted}):
        key = ClusterKey(event.cluster_id, event.protocol), event.machine_id
        if key in wanted:
            found[key] = _with(found[key], event, wanted[key].condition)
            if event.after != event.before:  # an earlier event is of an earlier state
                del wanted[key]
        if not wanted:
            break
    return found


def _with(known: Failure, event: AuditEvent, condition: Condition) -> Failure:
    entered = event.before != event.after == condition.value
    tells = event.event in _FAILURES or entered
    return Failure(
        event.at if entered else None,
        known.reason or (event.reason if tells else ""),
        event.by if entered else "",
    )
