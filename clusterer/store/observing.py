"""Observations of an instance's own program: ``set_state(…, 2)``."""

from __future__ import annotations

import redis

from clusterer.errors import StateUnavailable, UnknownNode
from clusterer.ids import PROTO_BIN
from clusterer.membership import Condition, Event, Node
from clusterer.membership.suspicions import Kind, elsewhere
from clusterer.membership.views import ClusterKey, Views
from clusterer.settings import Settings
from clusterer.store.node_change import Cause
from clusterer.store.nodes import NodeStore
from clusterer.store.paths import Observation, PathStore, Reply
from clusterer.store.probers import ProberHere, ProberStore
from clusterer.store.suspicions import Opened, SuspicionStore

REPORTED = "set_state"
"""Beginning of the reason of a record, and of a suspicion, that a program reported."""

_ATTEMPTS = 50
"""Observations that other changes interfere with before the call gives up."""


class Observer:
    """Records that an instance took a node for failed. Safe to share between threads."""

    def __init__(self, settings: Settings, sender: int, client: redis.Redis) -> None:
        self._sender = sender
        self._nodes = NodeStore(settings, client)
        self._paths = PathStore(settings, client)
        self._suspicions = SuspicionStore(settings, client)
        self._probers = ProberStore(settings, client)
        self._prober = ProberHere()

    def suspect(self, key: ClusterKey, machine_id: int, views: Views, by: str) -> None:
        """Note a failed attempt of the sender, and have other hosts asked about the node.

        Where no other host can be asked, the node itself changes at once. Raises `UnknownNode`,
        `StateUnavailable`.
        """
        for _ in range(_ATTEMPTS):
            node, _now = self._nodes.read(key, machine_id)
            if node is None:
                raise UnknownNode(f"cluster {key} has no node {machine_id}")
            if node.condition is Condition.DOWN or self._suspected(node, views, by):
                return
        raise StateUnavailable(
            f"node {machine_id} of cluster {key} changed {_ATTEMPTS} times; try again"
        )

    def _suspected(self, node: Node, views: Views, by: str) -> bool:
        """Note the observation; False if the node or the record changed meanwhile."""
        if node.protocol != PROTO_BIN:  # no packet is sent to it
            return self._commit(node, by)
        records = self._paths.records(self._sender)
        before = records.get(node.destination)
        seen = Observation(node, before, Event.SUSPECTED, REPORTED, records.now_ms, by)
        ((reply, _after),) = self._paths.observe(self._sender, [seen])
        if reply is Reply.NOT_UP:
            return not self._is_alone(node, views) or self._commit(node, by)
        if reply is not Reply.ASK:
            return reply is not Reply.CHANGED
        opened = self._suspicions.open(
            node,
            Kind.SUSPECT,
            asking=self._prober.find(views),
            reason=by,
            views=views,
            observation=(self._sender, seen),
        )
        return self._commit(node, by) if opened is Opened.ALONE else True

    def _is_alone(self, node: Node, views: Views) -> bool:
        """Whether no other host can say if the node can be reached."""
        present = self._probers.present(node.cluster)
        return not elsewhere(node, present.keys() - {self._prober.find(views)}, views)

    def _commit(self, node: Node, by: str) -> bool:
        return self._nodes.observe(node, Event.SUSPECTED, Cause(by)) is not None
