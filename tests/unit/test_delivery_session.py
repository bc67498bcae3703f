"""What a sender session records: counts and the offset up to which they count, together."""

from __future__ import annotations

from dataclasses import replace
from time import monotonic

from clusterer.delivery.context import Context
from clusterer.delivery.session import SenderSession
from clusterer.membership import Node, State
from clusterer.membership.paths import Path
from clusterer.membership.views import ClusterKey, ClusterView
from clusterer.settings import Settings
from clusterer.store import Directory, NodeStore, connect
from clusterer.store.deliveries import Claim, Move
from clusterer.store.paths import PathStore
from clusterer.store.sessions import SessionStore
from tests.support.cluster import node

KEY = ClusterKey(1, "bin")
A, B = (replace(node(n, state=State.DOWN), generation=5) for n in (2, 3))
CLAIM = Claim(1, 10, {KEY: 10}, {KEY: 7}, {}, {}, frozenset())


def views(*nodes: Node) -> dict[ClusterKey, ClusterView]:
    return {KEY: ClusterView.of(KEY, 1, nodes)}


def context_of(settings: Settings) -> Context:
    """Return a context whose stores connect on first use, which these tests do not make."""
    client, nodes = connect(settings), NodeStore(settings)
    store = SessionStore(settings, "queue", "token", client)
    return Context(settings, store, PathStore(settings, client), Directory(nodes))


def test_commit_before_first_packet_has_count_with_its_offset() -> None:
    """A count without its offset is counted again by the next worker that takes the lease."""
    session = SenderSession(CLAIM, context_of(Settings()), views(A, B))
    session.update(views(replace(A, state=State.UP), B))
    commit = session.take_commit()
    assert commit is not None
    assert commit.counters == {f"{A.destination}/skipped": 10}
    assert commit.moves == [Move(A.destination, 10, 10)]


def test_record_that_ends_while_node_is_down_opens_no_gate() -> None:
    """An operator took the node down after a record had closed its gate at the claim."""
    up = replace(A, state=State.UP)
    context = context_of(Settings())
    context.clock.tell(1_000_000, monotonic())
    path = Path(State.PROBING, 1, 1_000_000, 1_004_000, up.epoch, "Connection refused")
    claim = replace(CLAIM, paths={up.destination: path}, paths_counter=1)
    session = SenderSession(claim, context, views(up, B))
    session.update(views(A, B))
    session.take_paths({}, 2)
    assert not any(peer.up for peer in session.peers.values())
    session.update(views(up, B))
    assert session.peers[up.destination].up
