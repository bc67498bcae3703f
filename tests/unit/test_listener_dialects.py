"""Packets of OpenSIPS 3.x in the dispatcher: cluster, source and destination of the trailer."""

from __future__ import annotations

import pytest

from clusterer.listener.counters import Counters
from clusterer.listener.dispatch import Dispatcher
from clusterer.listener.registrations import ReceiveInfo, Registration, Registry
from clusterer.membership import State
from clusterer.store import ClusterKey, ClusterView
from clusterer.wire import Packet, Trailer
from clusterer.wire.layout3 import BRIDGE, EXTRA, INTERNAL
from tests.support.listening import Recorded
from tests.support.seeding import make_node

OURS = Trailer(3, 1)
"""For this instance, node 1, in cluster 3 of OpenSIPS 3.x nodes."""


class Control:
    """Records the packets of the clusterer itself."""

    def __init__(self) -> None:
        self.last_seen: dict[int, float] = {}
        self.taken: list[tuple[int, int, Packet]] = []

    def take(self, kind: int, info: ReceiveInfo, machine_id: int) -> None:
        self.taken.append((kind, machine_id, info.packet))


class Bench:
    """A dispatcher of node 1: cluster 1 is of 2.2, clusters 3 and 4 are of OpenSIPS 3.x."""

    def __init__(self) -> None:
        self.registry = Registry(1)
        self.counters = Counters()
        self.dispatcher = Dispatcher(1, self.registry, self.counters, frozenset({3, 4}))
        self.use(1, 3, 4)

    def use(self, *clusters: int, down: int = 0) -> None:
        """Use a snapshot of three nodes in each cluster, of which an operator took one down."""
        keys = [ClusterKey(cluster_id, "bin") for cluster_id in clusters]
        self.views = {
            key: ClusterView.of(
                key,
                1,
                [
                    make_node(
                        each,
                        cluster_id=key.cluster_id,
                        state=State.DOWN if each == down else State.UP,
                    )
                    for each in (1, 2, 3)
                ],
            )
            for key in keys
        }
        self.dispatcher.use(self.views)

    def register(
        self, cluster_id: int = 3, *, module: str = "ul", auth_check: bool = True
    ) -> tuple[Registration, Recorded]:
        recorded = Recorded()
        watch = self.registry.reserve(module, cluster_id, 5)
        made = Registration(watch, recorded, auth_check, frozenset())
        self.registry.add(made)
        self.dispatcher.use(self.views)
        return made, recorded

    def send(
        self,
        trailer: Trailer | None = OURS,
        *,
        ip: str = "127.0.0.2",
        machine_id: int | None = 2,
        module: str = "ul",
    ) -> dict[str, int]:
        """Route one packet; return the drops that it caused."""
        before = self.counters.drops.copy()
        route = self.dispatcher.route(ip, module, machine_id, trailer)
        packet = Packet(module, 5, machine_id, b"", 1, trailer)
        for call in route.calls:
            call(5, ReceiveInfo((ip, 1), packet), machine_id)
        for noted in route.noted:
            noted.last_seen[machine_id or 0] = 1.0
        return dict(self.counters.drops - before)


def test_dialect_packet_for_this_node_reaches_registration() -> None:
    bench = Bench()
    registration, recorded = bench.register()
    assert bench.send() == {}
    assert recorded.seen == [(5, 2)]
    assert registration.last_seen == {2: 1.0}
    assert set(bench.counters.received) == {("ul", 2)}


def test_dialect_packet_relayed_by_other_node_accepted() -> None:
    bench = Bench()
    _, recorded = bench.register()
    assert bench.send(ip="127.0.0.3") == {}
    assert bench.send(ip="127.0.0.1") == {}, "as a node on the host of this instance passes it on"
    assert recorded.seen == [(5, 2)] * 2


@pytest.mark.parametrize(
    ("trailer", "ip", "machine_id", "reason"),
    [
        (OURS, "127.0.0.9", 2, "unknown source"),
        (OURS, "127.0.0.2", 9, "unknown source"),
        (OURS, "127.0.0.1", 1, "unknown source"),
        (OURS, "127.0.0.2", None, "unknown source"),
        (Trailer(3, 2), "127.0.0.2", 3, "other destination"),
        (Trailer(3, 0), "127.0.0.2", 3, "other destination"),
        (Trailer(3, 9), "127.0.0.9", 3, "unknown source"),
        (Trailer(3, BRIDGE, 7, 2), "127.0.0.2", None, "from another cluster"),
        (Trailer(1, 1), "127.0.0.2", 2, "wrong dialect"),
        (Trailer(7, 1), "127.0.0.2", 2, "wrong dialect"),
        (Trailer(-3, 1), "127.0.0.2", 2, "wrong dialect"),
        (Trailer(None), "127.0.0.2", None, "no trailer"),
        (None, "127.0.0.2", None, "no machine_id"),
    ],
)
@pytest.mark.parametrize("cluster_id", [3, 0])
def test_dialect_packet_not_for_us_dropped_with_reason(
    trailer: Trailer | None, ip: str, machine_id: int | None, reason: str, cluster_id: int
) -> None:
    bench = Bench()
    _, recorded = bench.register(cluster_id, auth_check=False)
    assert bench.send(trailer, ip=ip, machine_id=machine_id) == {reason: 1}
    assert recorded.seen == []
    assert bench.counters.received == {}


@pytest.mark.parametrize("module", ["ul", INTERNAL, EXTRA])
@pytest.mark.parametrize("down", [1, 2])
def test_dialect_packet_of_or_to_disabled_node_counted_only(
    caplog: pytest.LogCaptureFixture, down: int, module: str
) -> None:
    bench, control = Bench(), Control()
    bench.dispatcher.control(3, control)
    _, recorded = bench.register(3)
    bench.use(1, 3, 4, down=down)
    trailer = Trailer(3) if module == INTERNAL else OURS
    assert bench.send(trailer, module=module) == {"disabled node": 1}
    assert (recorded.seen, control.taken, control.last_seen) == ([], [], {})
    assert not caplog.records
    bench.use(1, 3, 4, down=3)
    assert bench.send(trailer, module=module) == {}


def test_dialect_packet_of_deleted_cluster_dropped() -> None:
    bench = Bench()
    _, recorded = bench.register()
    bench.use(1, 4)
    assert bench.send() == {"unknown source": 1}
    bench.use(1, 3)
    assert bench.send() == {}
    assert recorded.seen == [(5, 2)]


def test_dialect_packet_reaches_registrations_of_its_cluster() -> None:
    bench = Bench()
    (_, third), (_, fourth), (_, every), (_, old) = (
        bench.register(cluster_id, auth_check=cluster_id > 0) for cluster_id in (3, 4, 0, 1)
    )
    assert bench.send() == {}
    assert bench.send(Trailer(4, 1), machine_id=3) == {}
    assert third.seen == [(5, 2)]
    assert fourth.seen == [(5, 3)]
    assert every.seen == [(5, 2), (5, 3)]
    assert old.seen == []


def test_dialect_packet_for_no_registered_cluster_counted() -> None:
    bench = Bench()
    bench.register(4)
    bench.register(1)
    assert bench.send() == {"other cluster": 1}
    assert bench.send(module="dialog") == {"unknown module": 1}


def test_dialect_22_packet_for_3x_registration_dropped() -> None:
    bench = Bench()
    _, recorded = bench.register(auth_check=False)
    assert bench.send(None) == {"wrong dialect": 1}
    assert recorded.seen == []
    _, old = bench.register(1)
    _, every = bench.register(0, auth_check=False)
    assert bench.send(None) == {}
    assert old.seen == every.seen == [(5, 2)]
    assert recorded.seen == []


def test_dialect_3x_packet_without_3x_clusters_dropped() -> None:
    bench = Bench()
    bench.dispatcher = Dispatcher(1, bench.registry, bench.counters)
    _, recorded = bench.register()
    assert bench.send() == {"wrong dialect": 1}
    assert bench.send(None) == {}
    assert recorded.seen == [(5, 2)]


def test_dialect_muted_node_silenced_in_its_cluster_only() -> None:
    bench = Bench()
    registration, recorded = bench.register()
    bench.register(4)
    bench.dispatcher.time_out(registration, 2, until=10.0)
    recorded.seen.clear()
    assert bench.send() == {"silenced": 1}
    assert bench.send(Trailer(4, 1)) == {}


# -- the packets of the clusterer itself --------------------------------------------------------


@pytest.mark.parametrize(("module", "trailer"), [(INTERNAL, Trailer(3)), (EXTRA, OURS)])
def test_control_takes_packets_of_its_cluster(
    module: str, trailer: Trailer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    bench = Bench()
    control = Control()
    before = bench.dispatcher.epoch
    bench.dispatcher.control(3, control)
    assert bench.dispatcher.epoch != before
    assert bench.send(trailer, module=module) == {}
    assert bench.send(trailer, module=module, ip="127.0.0.3") == {}
    packet = Packet(module, 5, 2, b"", 1, trailer)
    assert control.taken == [(5, 2, packet)] * 2
    assert set(bench.counters.received) == {(module, 2)}
    assert caplog.messages == []
    assert bench.send(trailer._replace(cluster_id=4), module=module) == {"unknown module": 1}
    assert bench.send(trailer, module=module, ip="127.0.0.9") == {"unknown source": 1}
    assert bench.send(trailer, module=module, machine_id=9) == {"unknown source": 1}
    assert len(control.taken) == 2


def test_control_gets_no_packet_for_other_node() -> None:
    bench = Bench()
    control = Control()
    bench.dispatcher.control(3, control)
    assert bench.send(Trailer(3, 3), module=EXTRA) == {"other destination": 1}
    assert control.taken == []
    assert control.last_seen == {}


def test_control_notes_packets_but_those_of_topology() -> None:
    bench = Bench()
    control = Control()
    bench.dispatcher.control(3, control)
    bench.send(Trailer(3), module=INTERNAL)
    assert control.last_seen == {}
    bench.register()
    for module, machine_id in (("ul", 2), ("dialog", 3)):
        bench.send(module=module, machine_id=machine_id)
    assert control.last_seen == {2: 1.0, 3: 1.0}
    bench.send(Trailer(4, 1))
    bench.send(None)
    assert len(control.last_seen) == 2
    assert len(control.taken) == 1, "that of the topology"


def test_control_and_registration_share_packets() -> None:
    bench = Bench()
    control = Control()
    bench.dispatcher.control(3, control)
    registration, recorded = bench.register(module=EXTRA)
    bench.send(module=EXTRA)
    assert recorded.seen == [(5, 2)]
    assert len(control.taken) == 1
    assert registration.last_seen == control.last_seen == {2: 1.0}


def test_control_takes_packets_others_registered_for() -> None:
    bench = Bench()
    control = Control()
    bench.dispatcher.control(3, control)
    bench.register(4, module=EXTRA)
    assert bench.send(module=EXTRA) == {}
    assert len(control.taken) == 1


def test_control_takes_no_packet_of_22() -> None:
    bench = Bench()
    control = Control()
    bench.dispatcher.control(1, control)
    assert bench.send(None, module=EXTRA) == {"unknown module": 1}
    assert control.taken == []
