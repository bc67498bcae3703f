"""The due nodes: jobs claim them, and conclude their observations, in few round trips."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import redis

from clusterer.membership import Condition, Event, Node, apply
from clusterer.membership.views import ClusterKey
from clusterer.settings import Settings
from clusterer.store import keys
from clusterer.store.badvalues import Command, batches, ids, read_all
from clusterer.store.client import Store, seconds_of, translated
from clusterer.store.encoding import decode_node
from clusterer.store.node_change import EARLY_S, Cause, Change, due_ms
from clusterer.store.scripts import Call, run_each

log = logging.getLogger(__name__)

_AT_ONCE = 250
"""Nodes in one round trip: some 10 ms of Redis's time."""

_MOST_CLAIMED = 1000
"""Nodes of a cluster that one job takes."""

_SET_BACK_S = 1.0
"""A clock that goes back by more was set; by less, it was corrected."""


@dataclass(frozen=True, slots=True)
class Observation:
    """The observation of a claimed node."""

    seen: Node
    event: Event
    cause: Cause


class DueNodes(Store):
    """The due nodes of all clusters. Safe to share between threads."""

    def __init__(self, settings: Settings, client: redis.Redis) -> None:
        super().__init__(settings, client)
        self._interval = settings.probe_interval
        self._looked_at = 0.0

    def claim(self, clusters: Iterable[ClusterKey], hide_s: float) -> list[Node]:
        """Take up to 1,000 due nodes of each cluster; no other job gets them for ``hide_s``."""
        found: list[tuple[ClusterKey, int]] = []
        clusters = list(clusters)
        with translated(self._settings, "find due nodes"):
            self._watch_clock(clusters)
            for batch in batches(clusters, _AT_ONCE):
                arguments = (int(hide_s * 1000), _MOST_CLAIMED)
                calls = [Call("claim_due", [keys.due(*key)], arguments) for key in batch]
                replies = run_each(self._client, calls)
                found += [
                    (key, machine_id)
                    for key, members in zip(batch, replies, strict=True)
                    for machine_id in ids(keys.due(*key), members or ())
                ]
            return [
                node for batch in batches(found, _AT_ONCE) for node in self._nodes(batch)[0] if node
            ]

    def _watch_clock(self, clusters: Iterable[ClusterKey]) -> None:
        """Reschedule all nodes if the clock went back: their times would be too far ahead."""
        _, now = self._nodes([])
        back_s, self._looked_at = self._looked_at - now, now
        if back_s < _SET_BACK_S:
            return
        log.warning("Redis: clock set back by %.0f s; rescheduling all nodes", back_s)
        for key in clusters:
            (members,) = read_all(self._client, [("zrange", keys.due(*key), 0, -1)])
            waiting = [(key, found) for found in ids(keys.due(*key), members)]
            for batch in batches(waiting, _AT_ONCE):
                nodes, now = self._nodes(batch)
                known = (node for node in nodes if node is not None)
                run_each(self._client, [self._rescheduled(node, now) for node in known])

    def conclude(self, observations: Iterable[Observation]) -> None:
        """Apply each observation to its node, if the node has not changed since.

        An observation of a changed node is dropped: the change counted the same failure, or is
        newer knowledge. A node that its observation does not change gets the due time of its state.
        """
        with translated(self._settings, "note observations of nodes"):
            for batch in batches(observations, _AT_ONCE):
                self._conclude(batch)

    def postpone(self, nodes: Iterable[Node]) -> None:
        """Look at nodes again as long after the claim as if they had failed then.

        A probing node is due after the probe interval, a disabled one after ``duration`` seconds.
        """
        with translated(self._settings, "postpone nodes"):
            for batch in batches(nodes, _AT_ONCE):
                run_each(self._client, [self._postponed(node) for node in batch])

    def _postponed(self, node: Node) -> Call:
        disabled = node.condition is Condition.DISABLED
        after_s = node.duration if disabled else self._interval
        due = int((self._looked_at + after_s - EARLY_S) * 1000)
        return self._due(node, due)

    def _conclude(self, batch: Sequence[Observation]) -> None:
        nodes, now = self._nodes([(o.seen.cluster, o.seen.machine_id) for o in batch])
        calls: list[Call] = []
        changes: list[Change | None] = []
        for observed, node in zip(batch, nodes, strict=True):
            if node is None or node.version != observed.seen.version:
                continue
            after = apply(node, observed.event, now)
            if after == node:
                changes.append(None)
                calls.append(self._rescheduled(node, now))
            else:
                change = Change(node, after, observed.event, observed.cause)
                changes.append(change)
                calls.append(change.call(self._since(after, now), self._interval))
        for done, reply in zip(changes, run_each(self._client, calls), strict=True):
            if done is not None and reply is not None:
                done.take_reply(self._client, reply)

    def _since(self, node: Node, now: float) -> float:
        """Return the start of the interval until the next look: for a ping, its own start."""
        if node.condition is Condition.PROBING:
            return min(now, self._looked_at) - EARLY_S
        return now

    def _rescheduled(self, node: Node, now: float) -> Call:
        return self._due(node, due_ms(node, self._since(node, now), self._interval))

    @staticmethod
    def _due(node: Node, due: int | str) -> Call:
        key = node.cluster
        names = [keys.node(*key, node.machine_id), keys.due(*key)]
        return Call("reschedule", names, (node.version, node.machine_id, due))

    def _nodes(self, wanted: Sequence[tuple[ClusterKey, int]]) -> tuple[list[Node | None], float]:
        """Return the nodes (None for a node that is gone) and Redis TIME in UNIX seconds."""
        commands: list[Command] = [
            ("hgetall", keys.node(*key, machine_id)) for key, machine_id in wanted
        ]
        *hashes, time = read_all(self._client, [*commands, ("time",)])
        nodes = [
            decode_node(key, machine_id, data)
            for (key, machine_id), data in zip(wanted, hashes, strict=True)
        ]
        return nodes, seconds_of(time)
