"""Delivery to clusters of OpenSIPS 3.x: each node gets frames with its own destination."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest
import redis

from clusterer import Clusterer, Settings
from clusterer.delivery.meter import Meter
from clusterer.store import keys
from clusterer.store.packets import PacketLog
from clusterer.wire import FrameDecoder3, Packet, Trailer
from clusterer.wire.layout3 import CONTROL
from tests.support.cluster import (
    CLUSTER,
    assert_accounted,
    at_rest,
    delivering,
    load,
    node,
    node_for,
    numbers,
    stat,
)
from tests.support.cluster3 import INSTANCE, OTHERS, cluster3
from tests.support.frames import frame
from tests.support.opensips3 import OpenSips3
from tests.support.processes import wait_until
from tests.support.receiver import BinReceiver
from tests.support.vectors3 import module_frames3, packet_of, sent_to

CAPABILITY = "dialog-dlg-repl"
SETTINGS = {
    "server_id": 1,
    "linger": 0.5,
    "send_timeout": 5.0,
    "opensips_3_clusters": "1",
}
OTHER = CLUSTER._replace(cluster_id=2)
"""A cluster of 2.2."""


@pytest.fixture
def receivers(settings: Settings) -> Iterator[dict[int, BinReceiver]]:
    """The nodes 21, 22 and 23 of cluster 1, which has node 1 too."""
    with ExitStack() as stack:
        made = {
            machine_id: stack.enter_context(BinReceiver(decoder=FrameDecoder3))
            for machine_id in (21, 22, 23)
        }
        load(settings, [node(1), *(node_for(*item) for item in made.items())])
        yield made


def instance_of(settings: Settings) -> Clusterer:
    return Clusterer(settings=settings)


def made(instance: Clusterer, number: int, size: int = 100) -> Packet:
    builder = instance.packet(CAPABILITY, 2, 4, cluster_id=1)
    return builder.push_int(number).push_str(b"x" * size).build()


def destinations(receiver: BinReceiver) -> set[int | None]:
    trailers = [packet.trailer for packet in receiver.packets]
    return {trailer.destination for trailer in trailers if trailer is not None}


def test_captured_packets_arrive_byte_by_byte_at_their_nodes(
    settings: Settings, redis_client: redis.Redis, receivers: dict[int, BinReceiver]
) -> None:
    frames = module_frames3()
    packets = [packet_of(found) for found in frames]
    with instance_of(settings) as instance, delivering(settings):
        assert instance.send_to(1, "bin", packets[0]) == 3
        assert instance.send_many(1, "bin", packets[1:-1]) == 3
        assert instance.post(1, "bin", packets[-1]) == 3
        for machine_id, receiver in receivers.items():
            receiver.wait_for_frames(len(frames))
            arrived = b"".join(each.data for each in receiver.connections)
            assert arrived == b"".join(sent_to(found, machine_id) for found in frames)
        wait_until(lambda: at_rest(settings), message="log released")
    assert {stat(redis_client, machine_id, "sent") for machine_id in receivers} == {len(frames)}
    assert redis_client.xlen(keys.log(1)) == 0


@pytest.mark.parametrize("same_size", [True, False])
def test_blocked_peer_gets_rest_with_own_destination(
    settings: Settings, receivers: dict[int, BinReceiver], same_size: bool
) -> None:
    """The slow node's outbox, the front, and the read behind the front."""
    total = 4000
    with ExitStack() as stack:
        slow = stack.enter_context(BinReceiver(receive_buffer=4096, decoder=FrameDecoder3))
        nodes = [node(1), node_for(24, slow), *(node_for(*item) for item in receivers.items())]
        load(settings, nodes)
        instance = stack.enter_context(instance_of(settings))
        stack.enter_context(delivering(settings))
        instance.send_to(1, "bin", made(instance, 0))
        slow.wait_for_frames(1)
        slow.pause()
        for first in range(1, total, 500):
            last = min(first + 500, total)
            sizes = {n: 900 if same_size else 500 + n % 700 for n in range(first, last)}
            instance.send_many(1, "bin", [made(instance, n, sizes[n]) for n in sizes])
        for receiver in receivers.values():
            receiver.wait_for_frames(total)
        slow.resume()
        slow.wait_for_frames(total)
        for machine_id, receiver in {**receivers, 24: slow}.items():
            assert numbers(receiver) == list(range(total))
            assert destinations(receiver) == {machine_id}
        wait_until(lambda: at_rest(settings), message="log released")
    assert_accounted(settings)


def test_handovers_keep_order_and_destination_of_each(
    settings: Settings, receivers: dict[int, BinReceiver]
) -> None:
    total = 3000
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(delivering(settings, slice_s=0.15))
        instance = stack.enter_context(instance_of(settings))
        for first in range(0, total, 30):
            instance.send_many(1, "bin", [made(instance, n) for n in range(first, first + 30)])
        for machine_id, receiver in receivers.items():
            receiver.wait_for_frames(total)
            assert numbers(receiver) == list(range(total))
            assert destinations(receiver) == {machine_id}


def test_clusters_of_both_dialects_share_one_log(
    settings: Settings, receivers: dict[int, BinReceiver]
) -> None:
    meter = Meter()
    with BinReceiver() as old:
        two = node_for(2, old)
        object.__setattr__(two, "cluster_id", 2)
        load(settings, [two], OTHER)
        with instance_of(settings) as instance, delivering(settings, meter=meter):
            for number in range(50):
                instance.send_to(1, "bin", made(instance, number))
                packet = instance.packet("dialog", 2, cluster_id=2).push_str("key")
                instance.send_to(2, "bin", packet.push_int(number).build())
            old.wait_for_frames(50)
            for receiver in receivers.values():
                receiver.wait_for_frames(50)
    assert {packet.trailer for packet in old.packets} == {None}
    assert [packet.trailer for packet in receivers[21].packets] == [Trailer(1, 21)] * 50
    labels = {(place[1].cluster_id, *flow.sent) for place, flow in meter.flows.items()}
    assert labels == {(1, CAPABILITY), (2, "dialog")}


def test_worker_without_setting_loses_packets_and_says_so(
    settings: Settings,
    redis_client: redis.Redis,
    receivers: dict[int, BinReceiver],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with instance_of(settings) as instance:
        instance.send_many(1, "bin", [made(instance, n) for n in range(5)])
    with delivering(replace(settings, opensips_3_clusters="")):
        wait_until(lambda: stat(redis_client, 21, "lost") == 5, message="lost")
        PacketLog(settings, 1).append(CLUSTER, [frame(5)])
        wait_until(lambda: stat(redis_client, 21, "sent") == 1, message="the next is sent")
    assert "opensips_3_clusters lacks cluster 1; counted as lost" in caplog.text
    assert_accounted(settings)


def test_packets_of_member_are_accepted_by_nodes_of_its_cluster(settings: Settings) -> None:
    """The worker's connections have the address of the instance, as those of its member."""
    settings = replace(settings, opensips_3_clusters="7")
    with cluster3(settings) as cluster, cluster.instance() as instance, delivering(settings):
        cluster.wait_until_up()
        sent = [packet_of(each)._replace(machine_id=INSTANCE) for each in module_frames3()]
        sent = [each._replace(trailer=Trailer(7, 0)) for each in sent]
        assert instance.send_many(7, "bin", sent) == len(OTHERS)
        for node_id, opensips in cluster.nodes.items():
            arrived = wait_until(
                lambda node=opensips: modules_of(node, len(sent)),  # type: ignore[misc]
                message=f"all packets at node {node_id}",
            )
            assert arrived == [each._replace(trailer=Trailer(7, node_id)) for each in sent]
        assert cluster.up_at_nodes()


def modules_of(node: OpenSips3, count: int) -> list[Packet]:
    """Return the packets of modules that a node accepted of the instance; none before ``count``."""
    heard = [each.packet for each in list(node.heard) if each.packet.machine_id == INSTANCE]
    found = [packet for packet in heard if packet.module not in CONTROL]
    return found if len(found) >= count else []
