"""The peers of one sender session, grouped by their sent offsets: front, behind and resting."""

from __future__ import annotations

from collections.abc import Mapping

from clusterer.delivery.batch import Batch
from clusterer.delivery.context import Context
from clusterer.delivery.peer import Peer
from clusterer.delivery.peer_maker import PeerMaker
from clusterer.delivery.resting import Resting
from clusterer.delivery.resting_nodes import RestingNodes
from clusterer.membership import Node
from clusterer.membership.views import ClusterKey


class Groups:
    """The front, the peers behind the front, and the peers and nodes that rest.

    ``head`` is the sent offset of the front, the group of ready peers that is furthest. The
    blocking read of the engine follows the head. The peers behind have reads of their own.
    """

    def __init__(self, maker: PeerMaker, context: Context) -> None:
        claim = maker.claim
        self.head = claim.tail
        self.peers: dict[str, Peer] = {}
        """All peers by `Node.destination`."""
        self.front: list[Peer] = []
        self.behind: list[Peer] = []
        self.counts = dict(claim.counts)
        """Packets of each cluster up to the head, as far as they were seen."""
        self.resting = Resting(claim.sender, self.counts)
        self.nodes = RestingNodes(claim, context.rosters, self.counts, self.peers)
        """Nodes for which no peer is made."""
        self._maker = maker
        self._replay = context.replay
        self.active: list[Peer] = []
        """The peers that do not rest."""
        self._nearest_next = False

    # -- grouping -------------------------------------------------------------------------------

    def gather(self) -> None:
        """Group all peers again: nodes or gates have changed."""
        self.resting.end(self.head)
        self.nodes.look()
        self.active = list(self.peers.values())
        self.regroup()

    def regroup(self) -> None:
        """Sort the peers that do not rest into front, behind and resting."""
        ready = [peer for peer in self.active if self.is_ready(peer)]
        head = max((peer.sent_offset for peer in ready), default=self.head)
        if self.holds_head and head > self.head:
            self.end_rest()
            self._make_all()
            self.regroup()
            return
        if not self.holds_head and head != self.head:
            self.head = head
            self.counts.clear()
        self.front = [peer for peer in ready if peer.sent_offset == self.head]
        if self.resting.add(self.front, replay=self._replay):
            self.front = [peer for peer in self.front if peer not in self.resting]
            self.active = [peer for peer in self.active if peer not in self.resting]
        chosen = set(map(id, self.front))
        self.behind = [peer for peer in self.active if id(peer) not in chosen]

    def make(self, node: Node) -> Peer:
        """Make the peer of a resting node; `gather` must follow."""
        peer = self.nodes.made_of(node, self.head)
        self.peers[peer.destination] = peer
        self._maker.prepare(peer)
        return peer

    def _make_all(self) -> None:
        """Make the peers of all resting nodes."""
        for nodes in self.nodes.members().values():
            self.active += map(self.make, nodes.values())
        self.nodes.look()

    def end_rest(self) -> None:
        """Make each resting peer active: a batch is offered to each of them by itself."""
        self.active += self.resting.end(self.head)

    # -- state ----------------------------------------------------------------------------------

    @property
    def holds_head(self) -> bool:
        """Whether nodes rest at the head, which must not move without a read then."""
        return bool(self.resting or self.nodes)

    @property
    def readable(self) -> bool:
        """Whether the front is to be read: it has peers, or the session has none at all."""
        return bool(self.front or self.resting) or not self.peers

    @property
    def record_at(self) -> float:
        """When skipped packets are to be recorded (monotonic seconds)."""
        return min(self.resting.due_at, self.nodes.due_at)

    def is_ready(self, peer: Peer) -> bool:
        """Whether a batch may be offered to the peer now."""
        return peer.ready(self._replay)

    # -- turns ----------------------------------------------------------------------------------

    def next_behind(self) -> list[Peer]:
        """Return the ready peers behind whose turn it is; they share one read.

        Every other turn is for the peers furthest back, which reach the others on their way. The
        turns in between are for the nearest peers: they do not wait for all the others.
        """
        ready = [peer for peer in self.behind if self.is_ready(peer)]
        if not ready:
            return []
        offset = (max if self._nearest_next else min)(peer.sent_offset for peer in ready)
        return [peer for peer in ready if peer.sent_offset == offset]

    def turn_over(self) -> None:
        """Note that a group has had its turn."""
        self._nearest_next = not self._nearest_next

    # -- moving on ------------------------------------------------------------------------------

    def advance(self, batch: Batch) -> None:
        """Go on to the end of a batch that was read from ``head``."""
        self.resting.pass_by(batch, self.head)
        self.nodes.pass_by(batch)
        self.head = batch.last
        for key, frames in batch.clusters.items():
            self.counts[key] = frames.last_n

    def skip_gap(self, peer: Peer) -> None:
        """Let a peer go to the head over entries that are in the log no more.

        They are lost at once if their number is known, else with the next packet.
        """
        if peer.key in self.counts:
            peer.lose_to(self.head, self.counts[peer.key])
        else:
            peer.sent_offset = peer.committed_offset = self.head

    def jump(self) -> None:
        """Let peers with a closed gate skip to the head, if the number of packets is known."""
        for peer in self.behind:
            idle = not peer.up and self.is_ready(peer) and peer.sent_offset < self.head
            if idle and peer.sent_n is not None and peer.key in self.counts:
                peer.skip_to(self.head, self.counts[peer.key])

    def end_at(self, tail: int, counts: Mapping[ClusterKey, int]) -> None:
        """Move the resting nodes to the end of a log whose last packets were trimmed unread."""
        self.nodes.jump(counts)
        self.counts.update(counts)
        self.head = tail
