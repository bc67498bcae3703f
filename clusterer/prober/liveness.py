"""Pings nodes that are up, so that a node that dies without traffic is noticed.

In each half of ``ping_interval`` one present prober pings each node, chosen by a hash of the node
and the number of the round: the probers agree on it without a message. A node's rounds begin at a
time of its own. A ping that fails opens a suspicion; it closes no gate.
"""

from __future__ import annotations

from functools import lru_cache, partial
from math import inf
from time import monotonic
from zlib import crc32

from clusterer.membership import Node, State
from clusterer.membership.views import ClusterKey
from clusterer.prober.checks import Found
from clusterer.prober.context import Context
from clusterer.prober.presence import Presence
from clusterer.prober.verdicts import PING_FAILED

LEAST_S = 0.25
"""Least time between two looks at which nodes are to be pinged; a quarter of a short round."""

LEAST_HALF_MS = 50
"""Shortest round, whatever ``ping_interval`` is."""

_Id = tuple[ClusterKey, int]


class Liveness:
    """One prober's share of the pings. For one thread."""

    def __init__(self, context: Context, presence: Presence) -> None:
        self._context = context
        self._presence = presence
        interval_s = context.settings.ping_interval
        self._half_ms = max(int(interval_s * 500), LEAST_HALF_MS) if interval_s else 0
        self._rounds: dict[_Id, int] = {}
        """The round of each node in which this prober looked at it last."""
        self._pinging: set[_Id] = set()
        # Nodes that start together with this process have time to listen.
        self.next_at = monotonic() + 2 * self._half_ms / 1000 if self._half_ms else inf

    def turn(self) -> None:
        """Ping the nodes whose round has begun and whose turn this prober has."""
        if monotonic() < self.next_at:
            return
        context = self._context
        left_ms = self._half_ms
        rounds: dict[_Id, int] = {}
        for key in context.viewpoint.clusters:
            for node in context.viewpoint.views[key].nodes.values():
                if node.state is State.UP:
                    left_ms = min(left_ms, self._look((key, node.machine_id), node, rounds))
        self._rounds = rounds
        self.next_at = monotonic() + max(min(LEAST_S, self._half_ms / 4000), left_ms / 1000)

    def _look(self, which: _Id, node: Node, rounds: dict[_Id, int]) -> int:
        """Ping a node if its round has begun; return in how many ms the next one begins."""
        half_ms = self._half_ms
        number, since_ms = divmod(self._context.now_ms + _phase(which, half_ms), half_ms)
        rounds[which] = number
        # The first ping of a new node is that of its next round.
        begins = self._rounds.get(which, number) != number
        if begins and which not in self._pinging and self._has_turn(which, node, number):
            self._ping(which, node)
        return half_ms - since_ms

    def _has_turn(self, which: _Id, node: Node, number: int) -> bool:
        """Whether this prober pings a node in a round."""
        others = self._presence.others(which[0], node)
        if not others:  # then the prober of the node's own host pings it: a refusal is evidence
            return self._context.viewpoint.is_here(node)
        turn = crc32(f"{node.machine_id}/{number}".encode()) % len(others)
        return others[turn] == self._context.me

    def _ping(self, which: _Id, node: Node) -> None:
        context = self._context
        self._pinging.add(which)
        source = context.viewpoint.source(node)
        done = partial(self._found, which, node, source)
        context.checks.start(node, source, context.settings.send_timeout, done)

    def _found(self, which: _Id, node: Node, source: str | None, found: Found) -> None:
        self._pinging.discard(which)
        context = self._context
        if found.reached is not False or context.viewpoint.has_lost(source):
            return
        if context.viewpoint.node(*which) == node:
            context.suspect(node, f"{PING_FAILED}: {found.reason}")


@lru_cache(maxsize=10_000)
def _phase(which: _Id, half_ms: int) -> int:
    return crc32(repr(which).encode()) % half_ms
