"""Several topologies on one network: all links come up, and all nodes see the same."""

from __future__ import annotations

import pytest

from clusterer.topology import LinkState
from tests.support.topologies import Network


def assert_all_see_the_same(network: Network) -> None:
    running = sorted(network.nodes)
    for node, topology in network.nodes.items():
        for other in running:
            expected = tuple(each for each in running if each != other)
            assert topology.neighbours(other) == expected, (node, other)


@pytest.mark.parametrize("seed", range(5))
def test_simulation_of_start_ends_with_all_links_up(seed: int) -> None:
    network = Network(range(1, 6), seed=seed)
    for node in network.rows:
        network.start(node)
        network.run(network.random.random() * 3)
    network.run(5)
    assert network.all_up()
    assert_all_see_the_same(network)


@pytest.mark.parametrize("seed", range(5))
def test_simulation_of_restart_ends_with_all_links_up(seed: int) -> None:
    network = Network(range(1, 6), seed=seed)
    for node in network.rows:
        network.start(node)
    network.run(10)
    network.stop(3)
    network.run(30)
    assert {network.states()[node, 3] for node in network.nodes} == {LinkState.DOWN}
    network.start(3)
    network.run(3)
    assert network.all_up()
