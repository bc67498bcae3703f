"""A cluster in a test's Redis: nodes put there as a reload would, an engine in a thread."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress

import redis

from clusterer.delivery import Engine
from clusterer.delivery.meter import Meter
from clusterer.errors import StateUnavailable
from clusterer.membership import Node
from clusterer.membership.reload_plan import plan_reload
from clusterer.services import Context
from clusterer.services.status import node_list
from clusterer.settings import Settings
from clusterer.store import Cause, ClusterKey, NodeStore, connect, keys
from clusterer.store.append_commands import sub_batches
from clusterer.store.badvalues import text
from clusterer.store.deliveries import Claim
from clusterer.store.packets import PacketLog
from clusterer.store.reloads import ReloadStore
from clusterer.store.sessions import SessionStore
from tests.support.processes import EVENTUALLY_S, wait_until
from tests.support.receiver import BinReceiver

CLUSTER = ClusterKey(1, "bin")


def node(machine_id: int, port: int = 1, host: str = "127.0.0.1", **more: object) -> Node:
    """Return a node of cluster 1."""
    base = Node(machine_id, 1, machine_id, f"bin:{host}:{port}", "bin", host, port)
    for name, value in more.items():
        object.__setattr__(base, name, value)
    return base


def node_for(machine_id: int, receiver: BinReceiver, **more: object) -> Node:
    """Return the node that ``receiver`` plays."""
    return node(machine_id, receiver.port, receiver.host, **more)


def load(settings: Settings, nodes: Iterable[Node], key: ClusterKey = CLUSTER) -> None:
    """Make Redis hold exactly ``nodes`` in the cluster, as a reload does."""
    with closing(connect(settings)) as client:
        store, wanted = ReloadStore(settings, client), list(nodes)

        def loaded() -> bool:
            """Another process may change a node between the read and the commit."""
            plan = plan_reload(store.read([key])[key], wanted, persistent=False)
            return not store.commit([plan], NodeStore(settings, client).now(), Cause("test"))

        wait_until(loaded, message="the nodes are loaded")


def append(log: PacketLog, frames: Sequence[bytes]) -> None:
    """Append any number of frames as senders do: a call for each sub-batch.

    Redis does not answer a call of many megabytes in time on a busy host.
    """
    for part in sub_batches(frames):
        log.append(CLUSTER, part)


def numbers(receiver: BinReceiver) -> list[int]:
    """Return the numbers in all frames received, in order of arrival."""
    found = [packet.fields().pop_int() for packet in receiver.packets]
    return [number for number in found if number is not None]


def stat(
    client: redis.Redis, machine_id: int, name: str, sender: int = 1, cluster_id: int = 1
) -> int:
    """Return a counter of a sender's packets to a node, of all its generations."""
    wanted = re.compile(rf"{cluster_id}/{machine_id}/\d+/{name}")
    found = client.hgetall(keys.stats(sender)).items()
    return sum(int(value) for field, value in found if wanted.fullmatch(text(field)))


def take_lease(store: SessionStore, sender: int) -> Claim | None:
    """Take the lease of a pending sender; None if a worker has it."""
    (found,) = store.claim_all([sender])
    assert found is None or isinstance(found, Claim), found
    return found


def at_rest(settings: Settings, sender: int = 1) -> bool:
    """Whether no worker holds a sender's lease and no closing guard is up.

    A guard that ran out stays in its hash until the next claim: it counts no more.
    """
    with connect(settings) as client:
        store = SessionStore(settings, settings.delivery_queue, "test", client)
        (guards,) = store.guards([sender])
        return not client.exists(keys.lease(sender)) and not guards.up


def assert_accounted(settings: Settings) -> None:
    """Check that all packets are sent, skipped, lost or still to come, for nodes there always."""
    context = Context(settings)
    with context.redis as client:
        for item in node_list.run(context).traffic:
            appended = client.hget(keys.counters(item.sender), f"{item.cluster_id}:bin")
            total = item.sent + item.skipped + item.lost + (item.backlog or 0)
            assert total == int(appended or 0), item


@contextmanager
def delivering(
    settings: Settings,
    *,
    slice_s: float = 60.0,
    queue: str | None = None,
    meter: Meter | None = None,
) -> Iterator[Engine]:
    """Run delivery jobs back to back in a thread, as one worker does; stop at the end."""
    engine = Engine(settings, queue or settings.delivery_queue, meter)
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            with suppress(StateUnavailable):
                engine.run(stop, slice_s=slice_s)
            stop.wait(0.02)

    thread = threading.Thread(target=work, name="test-delivery")
    thread.start()
    try:
        yield engine
    finally:
        stop.set()
        thread.join(EVENTUALLY_S)
        engine.close()
        assert not thread.is_alive()
