"""Pings nodes that are up, so that a node that dies without traffic is noticed.

In each half of ``ping_interval`` one present prober pings each node, chosen by a hash of the node
and the number of the round: the probers agree on it without a message. A node's rounds begin at a
time of its own. A ping that fails opens a suspicion; it closes no gate.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from math import inf
from time import monotonic
from zlib import crc32

from clusterer.membership import Node, State
from clusterer.membership.suspicions import PRESENT_MS
from clusterer.membership.views import ClusterKey, ClusterView
from clusterer.prober.checks import Found
from clusterer.prober.scene import Scene
from clusterer.prober.verdicts import PING_FAILED

TURN_S = 0.25
"""Between two looks at which nodes are to be pinged; less for a short ``ping_interval``."""

_Id = tuple[ClusterKey, int]


class Liveness:
    """One prober's share of the pings. For one thread."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._half_ms = int(scene.settings.ping_interval * 500)
        self._present: Mapping[ClusterKey, Mapping[int, int]] = {}
        self._read_at = -inf
        self._rounds: dict[_Id, int] = {}
        """The round of each node in which this prober looked at it last."""
        self._pinging: set[_Id] = set()
        self._turn_at = 0.0 if self._half_ms else inf

    @property
    def next_at(self) -> float:
        """When `turn` has something to do (monotonic seconds)."""
        return self._turn_at

    def turn(self) -> None:
        """Ping the nodes whose round has begun and whose turn this prober has."""
        if monotonic() < self._turn_at:
            return
        scene = self._scene
        self._turn_at = monotonic() + min(TURN_S, self._half_ms / 4000)
        if monotonic() - self._read_at >= min(self._half_ms / 1000, PRESENT_MS / 1000):
            self._read_at = monotonic()
            self._present = {key: scene.probers.present(key) for key in scene.place.clusters}
        rounds: dict[_Id, int] = {}
        for key in scene.place.clusters:
            self._look(key, scene.place.views[key], rounds)
        self._rounds = rounds

    def _look(self, key: ClusterKey, view: ClusterView, rounds: dict[_Id, int]) -> None:
        scene = self._scene
        now_ms = scene.now_ms
        for machine_id, node in view.nodes.items():
            if node.state is not State.UP:
                continue
            which = key, machine_id
            number = (now_ms + _phase(node, self._half_ms)) // self._half_ms
            rounds[which] = number
            last = self._rounds.get(which)
            # A node that is new here is first pinged when its next round begins.
            if last is None or last == number or which in self._pinging:
                continue
            if self._has_turn(key, node, number):
                self._ping(which, node)

    def _has_turn(self, key: ClusterKey, node: Node, number: int) -> bool:
        """Whether it is this prober that pings a node in a round."""
        scene = self._scene
        present = self._present.get(key, {})
        now_ms = scene.now_ms
        fresh = [
            machine_id
            for machine_id, at_ms in sorted(present.items())
            if now_ms - at_ms <= PRESENT_MS and scene.place.elsewhere(machine_id, node)
        ]
        if not fresh:  # then the prober of the node's own host pings it: a refusal is evidence
            return scene.place.is_here(node)
        turn = crc32(f"{node.machine_id}/{number}".encode()) % len(fresh)
        return fresh[turn] == scene.me and not scene.place.is_here(node)

    def _ping(self, which: _Id, node: Node) -> None:
        scene = self._scene
        self._pinging.add(which)
        source = scene.place.sources.get(which[0])
        done = partial(self._found, which, node)
        scene.checks.start(node, source, scene.settings.send_timeout, done)

    def _found(self, which: _Id, node: Node, found: Found) -> None:
        self._pinging.discard(which)
        scene = self._scene
        if found.reached is False and scene.place.node(*which) == node:
            scene.suspect(node, f"{PING_FAILED}: {found.reason}")


def _phase(node: Node, half_ms: int) -> int:
    return crc32(f"{node.cluster_id}/{node.machine_id}".encode()) % half_ms
