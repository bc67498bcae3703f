"""An instance in a cluster of OpenSIPS 3.x nodes: up at them, and what it sees of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from clusterer.cli import main
from clusterer.membership import State
from clusterer.services import Context
from clusterer.services.doctor import links
from clusterer.services.metrics.cluster import ClusterCollector
from clusterer.settings import Settings
from clusterer.wire import Packet
from tests.support.cluster3 import CAPABILITIES, INSTANCE, OTHERS, Cluster3, cluster3
from tests.support.opensips3 import CAP_UPDATE, DOWN, FULL_TOP, INTERNAL, PING, PROBE, UP
from tests.support.processes import LATE_S, rounds, wait_until
from tests.support.redis_server import RedisServer
from tests.support.vectors3 import captured_frames3, packet_of

SETTINGS = {"opensips_3_clusters": "7"}

UP_WITHIN_S = 2.0
"""Promised by docs/opensips/joining3.md."""


def of_nodes(capability: str, kind: int | None = None) -> list[Packet]:
    """Return packets that real nodes sent."""
    packets = map(packet_of, captured_frames3())
    return [each for each in packets if each.module == capability and kind in {None, each.type}]


@pytest.fixture
def cluster(settings: Settings) -> Iterator[Cluster3]:
    with cluster3(settings) as made:
        yield made


def test_member_is_up_at_all_nodes_in_time(cluster: Cluster3) -> None:
    for node in cluster.nodes.values():
        wait_until(lambda n=node: n.link(INSTANCE) == DOWN, message="down before the start")  # type: ignore[misc]
    with cluster.instance():
        wait_until(cluster.up_at_nodes, UP_WITHIN_S + LATE_S, "up at both nodes")
        cluster.wait_until_up(LATE_S)
        for node in cluster.nodes.values():
            wait_until(lambda n=node: set(OTHERS) - {n.node_id} <= {*n.peers[INSTANCE].neighbours})  # type: ignore[misc]
            assert node.of(INSTANCE, INTERNAL, FULL_TOP)
            assert not node.of(INSTANCE, INTERNAL, CAP_UPDATE), "it announces nothing"


def test_member_sees_links_and_capabilities_of_all(cluster: Cluster3) -> None:
    with cluster.instance():
        cluster.wait_until_up()
        wait_until(
            lambda: all(link.capabilities == CAPABILITIES for link in cluster.links().values()),
            message="the nodes' capabilities",
        )
        wait_until(
            lambda: (
                {i: link.neighbours for i, link in cluster.links().items()}
                == {21: (22, 23), 22: (21, 23)}
            ),
            message="the nodes' neighbours",
        )
        assert {i: link.next_hop for i, link in cluster.links().items()} == {21: 21, 22: 22}
        assert all(abs(link.since - time.time()) < 60 for link in cluster.links().values())
    assert not cluster.links(), "an instance that ends takes its links back"


@pytest.mark.slow
def test_member_stays_up_while_redis_is_away(
    settings: Settings, own_redis_server: Callable[[], RedisServer]
) -> None:
    server = own_redis_server()
    with cluster3(replace(settings, redis_url=server.url)) as cluster, cluster.instance():
        cluster.wait_until_up()
        changes = {i: len(node.history(INSTANCE)) for i, node in cluster.nodes.items()}
        server.stop()
        for _ in rounds(25, pause_s=0.2):
            assert cluster.up_at_nodes()
        server.start()
        wait_until(cluster.all_up, message="the links are in Redis again")
        assert changes == {i: len(node.history(INSTANCE)) for i, node in cluster.nodes.items()}


@pytest.mark.slow
def test_member_frozen_node_is_down_and_comes_back(cluster: Cluster3) -> None:
    with cluster.instance():
        cluster.wait_until_up()
        cluster.nodes[22].freeze()
        wait_until(lambda: cluster.states() == {21: "up", 22: "down"}, message="22 is down")
        wait_until(lambda: cluster.nodes[21].link(22) == DOWN, message="21 sees it too")
        link = cluster.links()[22]
        assert cluster.nodes[21].link(INSTANCE) == UP, "the other link stays up"
        assert link.next_hop in {None, 21}, "what 21 says of 22 may be old"
        cluster.nodes[22].thaw()
        cluster.wait_until_up()


def test_member_restarted_node_is_up_again_in_time(cluster: Cluster3) -> None:
    with cluster.instance():
        cluster.wait_until_up()
        cluster.nodes[22].stop()
        cluster.nodes[22].start()
        wait_until(
            lambda: cluster.nodes[22].link(INSTANCE) == UP, UP_WITHIN_S + LATE_S, "up at the node"
        )
        cluster.wait_until_up()


def test_member_reloaded_node_is_up_again(cluster: Cluster3) -> None:
    with cluster.instance():
        cluster.wait_until_up()
        node = cluster.nodes[21]
        node.reload({i: peer.address for i, peer in node.peers.items()})
        assert node.link(INSTANCE) == PROBE
        wait_until(lambda: node.link(INSTANCE) == UP, UP_WITHIN_S + LATE_S, "up after a reload")
        assert cluster.nodes[22].link(INSTANCE) == UP


def test_member_that_restarts_is_up_again_in_time(cluster: Cluster3) -> None:
    with cluster.instance():
        cluster.wait_until_up()
    with cluster.instance():
        began = time.monotonic()
        wait_until(
            lambda: all(
                any(each.at > began for each in node.heard if each.packet.machine_id == INSTANCE)
                for node in cluster.nodes.values()
            ),
            UP_WITHIN_S + LATE_S,
            "pings to both nodes",
        )
        cluster.wait_until_up(UP_WITHIN_S + LATE_S)
        for node in cluster.nodes.values():
            topologies = node.of(INSTANCE, INTERNAL, FULL_TOP)
            assert topologies, "a restart begins a new series of numbers"


@pytest.mark.slow
def test_member_node_taken_down_is_not_answered(cluster: Cluster3) -> None:
    with cluster.instance():
        cluster.wait_until_up()
        cluster.load(n22={"state": State.DOWN})
        wait_until(lambda: cluster.nodes[22].link(INSTANCE) == DOWN, message="22 has no answer")
        assert cluster.nodes[21].link(INSTANCE) == UP
        heard = len(cluster.nodes[22].of(INSTANCE, INTERNAL, PING))
        for _ in rounds(1.5):
            assert len(cluster.nodes[22].of(INSTANCE, INTERNAL, PING)) == heard
        cluster.load(n22={"state": State.UP})
        wait_until(lambda: cluster.nodes[22].link(INSTANCE) == UP, message="up again")
        cluster.wait_until_up()


@pytest.mark.slow
def test_member_taken_down_leaves_and_joins_again(cluster: Cluster3) -> None:
    with cluster.instance():
        cluster.wait_until_up()
        cluster.load(n23={"state": State.DOWN})
        wait_until(lambda: not cluster.links(), message="it has left")
        wait_until(lambda: cluster.nodes[21].link(INSTANCE) == DOWN, message="no answers")
        cluster.load(n23={"state": State.UP})
        cluster.wait_until_up()


def test_member_reaches_a_node_through_another(cluster: Cluster3) -> None:
    cluster.load(n22={"port": 9})
    with cluster.instance():
        wait_until(
            lambda: cluster.links()[22].next_hop == 21 if len(cluster.links()) == 2 else False,
            message="the way through 21",
        )
        assert cluster.states()[22] != "up"


def test_member_hands_packets_of_modules_to_callbacks(cluster: Cluster3) -> None:
    got: list[tuple[int, Packet]] = []
    frames = of_nodes("dialog-dlg-repl")
    with cluster.instance() as instance:
        instance.register_module(
            "dialog-dlg-repl",
            "bin",
            lambda _kind, info, machine_id: got.append((machine_id, info.packet)) if info else None,
            0,
            True,
            7,
        )
        cluster.wait_until_up()
        cluster.nodes[21].broadcast(frames)
        wait_until(lambda: len(got) == len(frames), message="all dialogs")
    assert {sender for sender, _ in got} == {21}
    assert [packet.payload for _, packet in got] == [packet.payload for packet in frames]


def test_member_ignores_a_command_of_another_node(cluster: Cluster3) -> None:
    command = of_nodes("clusterer-extra", 8)[0]
    with cluster.instance() as instance:
        cluster.wait_until_up()
        before = instance.listener.counters.callback_errors
        cluster.nodes[21].broadcast([command])
        cluster.nodes[21].activate("vip")
        wait_until(
            lambda: instance.listener.counters.received[("clusterer-extra", 21)].packets == 2
        )
        assert instance.listener.counters.callback_errors == before
        assert cluster.up_at_nodes()


def test_paths_shows_the_links_of_3x_clusters(
    cluster: Cluster3, in_environment: None, capsys: pytest.CaptureFixture[str]
) -> None:
    with cluster.instance():
        cluster.wait_until_up()
        assert main(["paths", "--json", "--node", "22"]) == 0
        (link,) = json.loads(capsys.readouterr().out)["links"]
        assert (link["cluster_id"], link["instance"], link["machine_id"]) == (7, INSTANCE, 22)
        assert (link["state"], link["next_hop"]) == ("up", 22)
        wait_until(lambda: all(link.capabilities for link in cluster.links().values()))
        assert main(["paths"]) == 0
        shown = capsys.readouterr().out
        assert "Links of cluster 7, OpenSIPS 3.x" in shown
        assert "dialog-dlg-repl" in shown


@pytest.mark.slow
def test_member_missing_in_a_table_is_seen_by_doctor(cluster: Cluster3) -> None:
    def told() -> dict[str, str]:
        findings = links.check(Context(cluster.settings))
        return {finding.level.value: finding.text for finding in findings}

    def link_up() -> dict[tuple[str, ...], float]:
        metrics = ClusterCollector(Context(cluster.settings)).collect()
        (metric,) = (each for each in metrics if each.name == "clusterer_link_up")
        return {tuple(each.labels.values()): each.value for each in metric.samples}

    with cluster.instance():
        cluster.wait_until_up()
        assert link_up() == {("7", "23", "21"): 1, ("7", "23", "22"): 1}
        assert told() == {
            "ok": "2 links of instances in OpenSIPS 3.x clusters, none needs attention"
        }
        without = {22: cluster.nodes[22].address}
        cluster.nodes[21].reload(without)
        wait_until(
            lambda: (
                "instance 23 gets no answer to its pings from node 21" in told().get("warn", "")
            ),
            message="the doctor's warning",
        )
        assert link_up() == {("7", "23", "21"): 0, ("7", "23", "22"): 1}
        cluster.nodes[21].refused.clear()
