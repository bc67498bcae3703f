"""Nodes whose gates are closed since the claim of a sender's log: they have no peers."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from itertools import chain
from math import inf
from time import monotonic

from clusterer.delivery.batch import Batch
from clusterer.delivery.peer import Peer
from clusterer.delivery.resting import pace_of, record_within_s
from clusterer.delivery.roster import Roster, Rosters
from clusterer.membership import Node
from clusterer.membership.views import ClusterKey
from clusterer.store.deliveries import Claim, Rest


def not_resting(
    claim: Claim, key: ClusterKey, roster: Roster, closed: Mapping[str, Node]
) -> Mapping[str, Node]:
    """Return the nodes of a cluster that must have a peer from the claim on.

    All other nodes skip the packets that the log has at the claim, and the number of these packets
    is known. The roster is not older than the claim. ``closed``: the nodes whose gates the sender's
    own records close.
    """
    redis_lost_packets = max(claim.committed.values(), default=0) > claim.tail
    if key not in claim.counts or redis_lost_packets:
        return roster.nodes
    found = dict(roster.up)
    for destination in closed:
        del found[destination]
    found |= {f: roster.nodes[f] for f in claim.guarded if f in roster.nodes}
    since_ms = claim.since_ms.get(key, -1)
    resting = (closed, roster.down if roster.youngest > since_ms else {})
    for destination, node in chain.from_iterable(each.items() for each in resting):
        if node.generation > since_ms and destination not in claim.committed_counts:
            found[destination] = node
    return found


class RestingNodes:
    """Nodes with a closed gate and without a `Peer`. All of them are at the head.

    No list of members exists. A member is a node that is down in the cluster's roster, or whose
    gate a record had closed at the claim. The sender itself and the nodes in ``made`` are no
    members. So a sender costs the same with 10 and with 1,000 nodes that are down. ``counts`` has
    the packets of each cluster up to the head.
    """

    def __init__(
        self,
        claim: Claim,
        rosters: Rosters,
        counts: Mapping[ClusterKey, int],
        made: Mapping[str, Peer],
    ) -> None:
        self._sender = claim.sender
        self._counts = counts
        self._made = made
        self._rosters = rosters
        self._committed, self._committed_counts = claim.committed, claim.committed_counts
        """What Redis has of the members, until the first record of all of them."""
        self._recorded: dict[ClusterKey, tuple[int, int]] = {}
        """Where a cluster's members were recorded last: sequence and packet count."""
        self._lost: Counter[ClusterKey] = Counter()
        """Packets of each cluster that were trimmed unread since then."""
        self._jumped: Counter[ClusterKey] = Counter()
        """By how much the packet counts have changed without packets since then."""
        self._down: dict[ClusterKey, Mapping[str, Node]] = {}
        self._closed: dict[ClusterKey, Mapping[str, Node]] = {}
        self._there = False
        self.due_at = inf
        """When the skipped packets are to be recorded (monotonic seconds)."""

    def __bool__(self) -> bool:
        return self._there

    def begin(self, key: ClusterKey, closed: Mapping[str, Node]) -> None:
        """Note whose gates in a cluster are closed by records at the claim."""
        self._closed[key] = closed

    def take_over(self, key: ClusterKey, roster: Roster) -> None:
        """Note which nodes of a cluster are down; `look` must follow."""
        self._down[key] = roster.down
        closed = self._closed.get(key)
        if closed:
            # A node that has changed since has a peer, unless an operator took the node down.
            found = {destination: roster.nodes.get(destination) for destination in closed}
            self._closed[key] = closed = {f: node for f, node in found.items() if node is not None}
            self._down[key] = {**closed, **roster.down}

    def closed_by_records(self) -> dict[str, Node]:
        """Return the members whose gates a record has closed, by destination."""
        return {
            destination: node
            for closed in self._closed.values()
            for destination, node in closed.items()
            if destination not in self._made
        }

    def look(self) -> None:
        """Find out whether there are members, after nodes or peers have changed."""
        self._there = any(True for down in self._down.values() for _ in self._members(down))

    def members(self) -> dict[ClusterKey, dict[str, Node]]:
        """Return all members by cluster and destination."""
        return {key: dict(self._members(down)) for key, down in self._down.items()}

    def _members(self, down: Mapping[str, Node]) -> Iterator[tuple[str, Node]]:
        for destination, node in down.items():
            if destination not in self._made and node.machine_id != self._sender:
                yield destination, node

    def made_of(self, node: Node, head: int) -> Peer:
        """Return a peer for a member, settled at the head."""
        key, destination = node.cluster, node.destination
        if key in self._recorded:
            offset, n = self._recorded[key]
        else:
            offset = self._committed.get(destination, -1)
            n = self._committed_counts.get(destination, 0)
        peer = Peer(node, offset, n, guarded=False)
        peer.lose_to(offset, n + self._lost[key])
        peer.sent_n = n + self._jumped[key]
        peer.skip_to(head, self._counts[key])
        return peer

    def pass_by(self, batch: Batch) -> None:
        """Note that a batch was read from the head, before ``counts`` follow it."""
        if not self._there:
            return
        self.jump({key: frames.first_n - 1 for key, frames in batch.clusters.items()})
        self.record_soon()

    def record_soon(self) -> None:
        """Let a record of the members be due when this sender has its turn."""
        if self._there and self.due_at == inf:
            nodes = sum(map(len, self._down.values()))
            within_s = pace_of(self._sender) * record_within_s(nodes)
            self.due_at = self._rosters.record_at(nodes, monotonic(), within_s)

    def jump(self, counts: Mapping[ClusterKey, int]) -> None:
        """Count the packets missing up to ``counts`` as lost, before the head gets these counts."""
        for key, n in counts.items():
            by = n - self._counts.get(key, n)
            self._jumped[key] += by
            self._lost[key] += max(by, 0)

    def record(self, head: int) -> list[Rest]:
        """Return what is to be recorded of all members, which are at the head."""
        self.due_at = inf
        found: list[Rest] = []
        for key, members in self.members().items():
            place = head, self._counts.get(key, 0)
            if members and self._recorded.get(key) != place:
                found += self._rests(key, list(members), *place)
                self._recorded[key] = place
            self._lost.pop(key, None)
            self._jumped.pop(key, None)
        self._committed = self._committed_counts = {}
        return found

    def _rests(self, key: ClusterKey, destinations: list[str], head: int, n: int) -> list[Rest]:
        """Return one record for all members that were recorded with the same packet count."""
        lost, jumped = self._lost[key], self._jumped[key]
        if key in self._recorded:
            before = {self._recorded[key][1]: destinations}
        else:
            before = defaultdict(list)
            for destination in destinations:
                at = self._committed_counts.get(destination)
                if (self._committed.get(destination), at) != (head, n):
                    before[at or 0].append(destination)
        return [
            Rest(some, head, n, skipped=n - at - jumped, lost=lost) for at, some in before.items()
        ]
