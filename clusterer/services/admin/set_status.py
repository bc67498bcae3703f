"""An operator takes a node down for good, or up again: the guide's clusterer_set_status."""

from __future__ import annotations

from clusterer.errors import ChangedMeanwhile, InvalidArgument
from clusterer.ids import require_id, require_protocol
from clusterer.membership import Condition, Event, Node, State
from clusterer.services.context import Context
from clusterer.store import Cause, ClusterKey

MAX_REASON = 500
"""Characters."""

_EVENTS = {0: Event.SET_DOWN, 1: Event.SET_UP}


def run(
    context: Context,
    cluster_id: int,
    machine_id: int,
    status: int,
    protocol: str,
    *,
    by: str,
    reason: str = "",
    seen: Condition | None = None,
) -> Node:
    """Set a node up (``status`` 1), or down until an operator sets it up (0); return the node.

    The node may be one of the instance's own. The audit stream stores ``by``, the author of the
    change such as ``operator root@sip1``, and ``reason``, at most `MAX_REASON` characters.

    ``seen``: the condition that the operator saw; `run` raises `ChangedMeanwhile` if an operator
    has taken the node down, or up, since then. Raises `InvalidArgument` for values that cannot be
    right, `UnknownNode` if there is no such node, `StateUnavailable` without Redis.
    """
    if status not in _EVENTS:
        raise InvalidArgument(f"status must be 0 (down) or 1 (up), not {status!r}")
    key = ClusterKey(require_id("cluster_id", cluster_id), require_protocol(protocol))
    machine_id = require_id("machine_id", machine_id)
    reason = require_reason(reason)
    cause = Cause(by, reason)
    return context.nodes.command(
        key, machine_id, _EVENTS[status], cause, lambda node: require_seen(node, seen)
    )


def require_seen(node: Node, seen: Condition | None) -> None:
    """Raise `ChangedMeanwhile` if an operator has taken the node down, or up, since ``seen``."""
    if seen is not None and (node.state is State.DOWN) != (seen is Condition.DOWN):
        done = "down" if node.state is State.DOWN else "up"
        raise ChangedMeanwhile(
            f"node {node.machine_id} of cluster {node.cluster_id} is {node.condition.value} now: "
            f"another operator has set it {done} meanwhile"
        )


def require_reason(reason: str) -> str:
    """Return an operator's reason as the audit keeps it; raises `InvalidArgument` if too long."""
    if len(reason) > MAX_REASON:
        raise InvalidArgument(f"the reason has {len(reason)} characters, at most {MAX_REASON} fit")
    # A terminal that is not UTF-8 must not keep an operator from giving the command.
    return reason.encode("utf-8", "replace").decode().strip()
