"""A cluster of many nodes and senders at rest, put into Redis by the store's own functions."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing

from clusterer.ids import PROTO_BIN
from clusterer.membership import Node
from clusterer.settings import Settings
from clusterer.store import ClusterKey, NodeStore, connect
from clusterer.store.deliveries import Commit, Move, Released
from clusterer.store.packets import PacketLog
from clusterer.store.receipts import Receipts
from clusterer.store.sessions import SessionStore
from clusterer.store.watches import Watch
from tests.support.cluster import load, take_lease
from tests.support.frames import frame

CLUSTER = ClusterKey(1, PROTO_BIN)
PACKETS = 3
"""Packets that each sender has sent to each node."""

TIMEOUT_MS = 60_000
_MOVES_AT_ONCE = 1000


def address_of(machine_id: int) -> str:
    """Return an address of loopback."""
    return f"127.1.{machine_id // 250}.{machine_id % 250 + 1}"


def nodes_of(numbers: Sequence[int], port: int) -> list[Node]:
    """Return nodes of cluster 1 with these machine_ids."""
    return [
        Node(i, 1, i, f"bin:{address_of(i)}:{port}", PROTO_BIN, address_of(i), port)
        for i in numbers
    ]


def put_cluster(settings: Settings, nodes: int, senders: int = 0, *, port: int = 5566) -> None:
    """Make cluster 1 of so many nodes; the first ``senders`` have sent to all others.

    Each sender is also an instance with a module that has seen all nodes, and listens.
    """
    load(settings, nodes_of(range(1, nodes + 1), port), CLUSTER)
    with ExitStack() as stack:
        client = stack.enter_context(connect(settings))
        worker = stack.enter_context(connect(settings))
        store = SessionStore(settings, settings.delivery_queue, "growth", worker)
        receipts = Receipts(settings, client)
        view = NodeStore(settings, client).view(CLUSTER)
        for sender in range(1, senders + 1):
            others = [node.destination for i, node in view.nodes.items() if i != sender]
            _send(settings, store, sender, others)
            _listen(receipts, sender, list(view.nodes))


def _send(settings: Settings, store: SessionStore, sender: int, fields: Sequence[str]) -> None:
    with closing(PacketLog(settings, sender)) as log:
        log.append(CLUSTER, [frame(number, sender=sender) for number in range(PACKETS)])
    take_lease(store, sender)
    for first in range(0, len(fields), _MOVES_AT_ONCE):
        some = fields[first : first + _MOVES_AT_ONCE]
        counters: dict[str, int | str] = {}
        for field in some:
            counters |= {f"{field}/sent": PACKETS, f"{field}/last_delivered": "now"}
        commit = Commit(sender, [Move(f, PACKETS, PACKETS) for f in some], counters, PACKETS + 1)
        while store.commit([commit]):  # on a busy machine the lease may lapse
            take_lease(store, sender)
    end = PACKETS, PACKETS + 1
    while store.release(sender, *end, {}, waiting=False, even_if_pending=False) is Released.LOST:
        take_lease(store, sender)


def _listen(receipts: Receipts, receiver: int, machine_ids: Sequence[int]) -> None:
    watch, run = Watch(receiver, "ratelimit", "ratelimit", 1, TIMEOUT_MS), f"run {receiver}"
    receipts.begin(receiver, run)
    receipts.register(watch, run, machine_ids)
    receipts.flush(receiver, run, {watch: {}}, age_ms=0, last_notice="0-0")
