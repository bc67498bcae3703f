"""One change of a node: the script call that commits it, the audit event, the log line."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import redis

from clusterer.membership import FAILURES, Condition, Event, Node, State, next_look
from clusterer.membership.suspicions import Suspicion
from clusterer.membership.views import ClusterKey
from clusterer.runtime.logs import about
from clusterer.store import keys
from clusterer.store.badvalues import blame, flat, text
from clusterer.store.encoding import encode_node
from clusterer.store.scripts import Call

log = logging.getLogger(__name__)

_COMMIT = "commit_node"

EARLY_S = 0.1
"""The probe job runs once a second, a little sooner or later. A look is due so much before its
time: otherwise every second look would wait for the next job."""

EVENTS_CAP = 10_000
"""Audit events kept per cluster (approximately, Redis trims whole blocks)."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Author of a change of a node, and the reason, for the audit stream."""

    by: str
    """For example ``probe``, ``delivery of sender 1``, ``operator root@sip1``."""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """A node before and after an event, and the cause of the event."""

    before: Node
    after: Node
    event: Event | str
    cause: Cause
    suspicion: Suspicion | None = None
    """Concluded by the change, which is not made if the suspicion has ended."""

    @property
    def renews_epoch(self) -> bool:
        """Whether all senders try the node again: its verdict becomes up, or is set up."""
        is_up = self.after.state is State.UP
        return is_up and (self.before.state is not State.UP or self.event is Event.SET_UP)

    @property
    def key(self) -> ClusterKey:
        """The node's cluster."""
        return self.after.cluster

    def call(self, now: float, probe_interval: float) -> Call:
        """Return the script call that commits; ``now`` is UNIX time, both are in seconds.

        `take_reply` reads its reply.
        """
        key, machine_id = self.key, self.after.machine_id
        fields = flat(encode_node(self.after))
        audit = flat(audit_fields(self.before, self.after, self.event, self.cause))
        names = [
            keys.node(*key, machine_id),
            keys.version(*key),
            keys.due(*key),
            keys.dirty(*key),
            keys.events(key.cluster_id),
            keys.suspicions(*key),
        ]
        due = due_ms(self.after, self._failed_at(now), probe_interval)
        since = self.suspicion.since_ms if self.suspicion is not None else ""
        head = [self.before.version, machine_id, due, EVENTS_CAP, since, int(self.renews_epoch)]
        return Call(_COMMIT, names, [*head, len(fields) // 2, *fields, *audit])

    def take_reply(self, client: redis.Redis, reply: Any) -> bool:
        """Log the change if the call has committed it, and name keys that the script could not use.

        Returns False if the node changed before, or if the suspicion had ended.
        """
        version, *unusable = reply
        blame(client, [text(name) for name in unusable])
        if version:
            self.log()
        return bool(version)

    def _failed_at(self, now: float) -> float:
        """Return from when the node's next look counts: from the start of a round, not its end."""
        if self.suspicion is None or self.after.condition is not Condition.PROBING:
            return now
        return min(now, self.suspicion.since_ms / 1000) - EARLY_S

    def log(self) -> None:
        """Log the change, or an observation that changed nothing."""
        after, before = self.after.condition.value, self.before.condition.value
        log.log(
            logging.WARNING if self.event in FAILURES else logging.INFO,
            "cluster %s node %s (%s): %s -> %s, tries %s/%s: %s%s, by %s",
            self.key,
            self.after.machine_id,
            self.after.url,
            before,
            after,
            self.after.no_tries,
            self.after.failed_attempts,
            self.event.value if isinstance(self.event, Event) else self.event,
            f" ({self.cause.reason})" if self.cause.reason else "",
            self.cause.by,
            extra=about(self.after, before=before, after=after),
        )


def due_ms(node: Node, now: float, probe_interval: float) -> int | str:
    """Return when the node is due, in ms since the epoch, as the scripts take it: '' is never."""
    due = next_look(node, now, probe_interval)
    return "" if due is None else int(due * 1000)


def audit_fields(
    before: Node | None, after: Node | None, event: Event | str, cause: Cause
) -> dict[str, str]:
    """Return the audit record of a change; None stands for a node that does not exist."""
    node = after or before
    if node is None:
        raise ValueError("a change needs a node before or after it")
    return {
        "protocol": node.protocol,
        "machine_id": str(node.machine_id),
        "url": node.url,
        "event": event.value if isinstance(event, Event) else event,
        "by": cause.by,
        "reason": cause.reason,
        "before": before.condition.value if before else "absent",
        "after": after.condition.value if after else "absent",
        "no_tries": str(node.no_tries),
        "failed_attempts": str(node.failed_attempts),
    }
