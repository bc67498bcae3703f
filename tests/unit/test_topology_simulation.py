"""Several topologies on one network and one clock: faults come and go, all links come up."""

from __future__ import annotations

import pytest

from clusterer.errors import WireError
from clusterer.topology import MESSAGES, LinkState, Ping, Topology, decode
from clusterer.wire import Packet
from tests.support.topologies import CLUSTER, STARTED, Network, rows

UP, DOWN = LinkState.UP, LinkState.DOWN


def started(seed: int, *, count: int = 5) -> Network:
    """Return a network whose nodes started one after the other and see each other."""
    network = Network(range(1, count + 1), seed=seed)
    for node in network.rows:
        network.start(node)
        network.run(network.random.random() * 3)
    network.run(5)
    assert network.all_up()
    return network


def assert_all_see_all_links(network: Network) -> None:
    """A node may miss a link to itself: no node tells another one about their own link."""
    running = set(network.nodes)
    for node, topology in network.nodes.items():
        for other in running - {node}:
            missing = running - {other} - set(topology.neighbours(other))
            assert missing <= {node}, (node, other)
        assert topology.reachable == running - {node}


@pytest.mark.parametrize("seed", range(10))
def test_simulation_of_start_ends_with_all_links_up(seed: int) -> None:
    assert_all_see_all_links(started(seed))


@pytest.mark.parametrize("seed", range(10))
def test_simulation_of_restart_ends_with_all_links_up(seed: int) -> None:
    network = started(seed)
    network.stop(3)
    network.run(30)
    assert {network.states()[node, 3] for node in network.nodes} == {DOWN}
    assert all(3 not in topology.reachable for topology in network.nodes.values())
    network.start(3)
    network.run(2)
    assert network.all_up()
    assert_all_see_all_links(network)


@pytest.mark.parametrize("seed", range(10))
def test_simulation_of_quick_restart_ends_with_all_links_up(seed: int) -> None:
    network = started(seed)
    for node in (2, 4):
        network.stop(node)
        network.run(network.random.random())
        network.start(node)
    network.run(10)
    assert network.all_up()  # nodes that noticed nothing have told the new one nothing
    assert all(len(topology.reachable) == 4 for topology in network.nodes.values())


@pytest.mark.parametrize("seed", range(10))
def test_simulation_of_lossy_network_recovers(seed: int) -> None:
    network = started(seed)
    network.loss, network.delay = 0.3, 0.5
    network.run(100)
    network.loss, network.delay = 0.0, 0.01
    network.run(62)  # node_timeout, then a ping
    assert network.all_up()


@pytest.mark.parametrize("seed", range(5))
def test_simulation_of_slow_network_keeps_all_links_up(seed: int) -> None:
    network = started(seed)
    network.delay = 0.45
    network.run(100)
    assert network.all_up()
    assert not any(
        link.since > 20 for each in network.nodes.values() for link in each.links.values()
    )


@pytest.mark.parametrize("seed", range(5))
def test_simulation_of_frozen_node_ends_down_at_all_others(seed: int) -> None:
    network = started(seed)
    network.freeze(3)
    network.run(4 + 1 + 2)  # ping_interval, ping_timeout, two ticks
    assert UP not in {network.states()[node, 3] for node in (1, 2, 4, 5)}
    network.run(3)
    assert {network.states()[node, 3] for node in (1, 2, 4, 5)} == {DOWN}
    network.thaw(3)
    network.run(10)
    assert network.all_up()
    assert_all_see_all_links(network)


@pytest.mark.parametrize("seed", range(5))
def test_simulation_of_one_broken_link_keeps_the_other_way(seed: int) -> None:
    network = started(seed)
    network.cut = {(1, 2), (2, 1)}
    network.run(20)
    down = {pair for pair, state in network.states().items() if state is not UP}
    assert down == {(1, 2), (2, 1)}
    assert network.nodes[1].next_hop(2) == 3
    assert network.nodes[5].neighbours(1) == (3, 4, 5)
    network.cut = set()
    network.run(62)
    assert network.all_up()
    assert network.nodes[5].neighbours(1) == (2, 3, 4, 5)


@pytest.mark.parametrize("seed", range(5))
def test_simulation_of_split_cluster_joins_again(seed: int) -> None:
    network = started(seed)
    network.cut = {(a, b) for a in range(1, 6) for b in range(1, 6) if (a <= 2) != (b <= 2)}
    network.run(20)
    assert network.nodes[1].reachable == {2}
    assert network.nodes[5].reachable == {3, 4}
    network.cut = set()
    network.run(62)
    assert network.all_up()
    assert_all_see_all_links(network)


def test_simulation_at_rest_sends_pings_and_pongs_only() -> None:
    network = started(1)
    network.sent.clear()
    network.run(100)
    assert {type(decode(packet)).__name__ for _, _, packet in network.sent} == {"Ping", "Pong"}
    assert len(network.sent) <= 20 * 2 * 100 / 4  # each of 20 pings each 4 s


def test_simulation_of_traffic_one_way_still_notices_silence() -> None:
    network = started(1, count=2)
    network.freeze(2)
    for _ in range(20):
        network.run(0.5)
        network.nodes[1].sent(2, network.now)
    assert network.states()[1, 2] is DOWN


@pytest.mark.parametrize("seed", range(20))
def test_simulation_of_hostile_packets_raises_only_wire_error(seed: int) -> None:
    network = started(seed % 3)
    recorded = [packet for _, _, packet in network.sent if not isinstance(decode(packet), Ping)]
    topology, random = network.nodes[1], network.random
    for _ in range(300):
        packet = spoiled(random.choice(recorded), network)
        try:
            sends = topology.received(packet, network.now)
        except WireError:
            continue
        assert len(sends) <= 5 * len(topology.links)
        assert all(send.node in topology.links for send in sends)
    network.run(130)
    assert network.all_up()


def spoiled(packet: Packet, network: Network) -> Packet:
    """Return ``packet`` with another source or type, and one integer of it changed."""
    random = network.random
    payload = bytearray(packet.payload)
    if payload:
        at = random.randrange(0, len(payload), 4)
        payload[at : at + 4] = random.choice((0, 1, 2, 3, 5, 77, -1, 2**31 - 1)).to_bytes(
            4, "little", signed=True
        )
    kind = packet.type if random.random() < 0.9 else random.choice(sorted(MESSAGES))
    source = random.choice((2, 3, 4, 5, 77, -1))
    return packet._replace(payload=bytes(payload), type=kind, machine_id=source)


def test_simulation_of_two_clusters_shares_nothing() -> None:
    first, second = Topology(CLUSTER, 1, STARTED), Topology(2, 1, STARTED)
    for topology in (first, second):
        for send in topology.set_nodes(rows([1, 2]), 0.0):
            assert send.packet.trailer is not None
            assert send.packet.trailer.cluster_id == topology.cluster_id
    first.send_failed(2, 0.1)
    assert second.links[2].pings == 1
