"""A member whose table changes, and a child of its program."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from clusterer.settings import Settings
from tests.support.cluster import load
from tests.support.cluster3 import INSTANCE, KEY, Cluster3, cluster3
from tests.support.forked import fork
from tests.support.ports import free_port
from tests.support.processes import wait_until

SETTINGS = {"opensips_3_clusters": "7"}


@pytest.fixture
def cluster(settings: Settings) -> Iterator[Cluster3]:
    with cluster3(settings) as made:
        yield made


def test_member_pings_a_node_that_gets_a_row(cluster: Cluster3) -> None:
    rows = cluster.rows.values()
    load(cluster.settings, (row for row in rows if row.machine_id != 22), KEY)
    with cluster.instance():
        wait_until(lambda: cluster.states() == {21: "up"})
        cluster.load()
        cluster.wait_until_up()
        load(cluster.settings, (row for row in rows if row.machine_id != 22), KEY)
        wait_until(lambda: cluster.states() == {21: "up"}, message="22 is no node any more")


def test_member_follows_a_node_to_another_address(cluster: Cluster3) -> None:
    with cluster.instance():
        cluster.wait_until_up()
        moved = free_port("127.0.0.22")
        cluster.nodes[22].stop()
        cluster.nodes[22].address = ("127.0.0.22", moved)
        cluster.nodes[22].start()
        cluster.load(n22={"port": moved})
        cluster.wait_until_up()


def test_member_moves_to_another_address(cluster: Cluster3) -> None:
    with cluster.instance():
        cluster.wait_until_up()
        moved = free_port("127.0.0.23")
        cluster.load(n23={"port": moved})
        for node in cluster.nodes.values():
            others = {i: peer.address for i, peer in node.peers.items()}
            node.reload(others | {INSTANCE: ("127.0.0.23", moved)})
        cluster.wait_until_up()


def test_member_connections_end_with_the_parent(cluster: Cluster3) -> None:
    """A forked child that lives on keeps no connection open at the nodes."""
    child = 0
    try:
        with cluster.instance():
            cluster.wait_until_up()
            child = fork(signal.pause)
        node = cluster.nodes[21]
        wait_until(lambda: not node.connections_from(INSTANCE), message="all have ended")
    finally:
        if child:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
