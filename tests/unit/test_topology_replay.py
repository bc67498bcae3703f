"""Captured streams of real 3.6.8 nodes, played to a `Topology` in the place of one of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from clusterer.topology import (
    CapabilityUpdate,
    DescriptionUpdate,
    FullTopology,
    LinkState,
    LinkUpdate,
    Message,
    NodeDescription,
    Ping,
    Pong,
    Send,
    Topology,
    UnknownId,
    decode,
)
from clusterer.wire import FrameDecoder3, Packet
from clusterer.wire.layout3 import INTERNAL
from tests.support.topologies import CLUSTER, rows
from tests.support.vectors3 import streams

DB_START = 1_795_896_033
"""When the nodes of the run with a database started, as their own packets say."""

MODULES = {
    "dialog-dlg-repl",
    "dialog-prof-repl",
    "ratelimit-pipe-repl",
    "usrloc-contact-repl",
}


def stream(run: str, source: int, node: int, number: int = 0) -> list[Packet]:
    """Return all packets that ``source`` sent to ``node`` on one connection of the run."""
    found = [
        each["data"]
        for each in streams(run)
        if (host(each["src"]), host(each["dst"])) == (source, node)
    ]
    return list(FrameDecoder3().feed(bytes.fromhex(found[number])))


def host(address: str) -> int:
    return int(address.partition(":")[0].rpartition(".")[2])


def play(topology: Topology, neighbour: int, packets: Iterable[Packet], now: float) -> list[Send]:
    """Let ``packets`` arrive from ``neighbour``; return what the topology sends."""
    sends = []
    for packet in packets:
        if packet.module == INTERNAL:
            sends += topology.received(packet, now)
        elif packet.machine_id == neighbour:
            topology.heard(neighbour, now)
    return sends


def compared(packets: Iterable[Packet]) -> list[Message | None]:
    """Return what both sides must have sent: capabilities and the times of pings differ."""
    messages = [decode(packet) for packet in packets if packet.module == INTERNAL]
    return [
        replace(message, timestamp=0) if isinstance(message, FullTopology) else message
        for message in messages
        if not isinstance(message, Ping | CapabilityUpdate)
    ]


def test_replay_of_two_nodes_sends_what_the_real_node_sent() -> None:
    run = "two-nodes-db"
    topology = Topology(CLUSTER, 21, DB_START)
    topology.set_nodes(rows([21, 22]), 0.0)
    sends = play(topology, 22, stream(run, 22, 21), 0.1)
    real = stream(run, 21, 22)
    assert compared(send.packet for send in sends) == compared(real)
    full = next(packet for packet in real if isinstance(decode(packet), FullTopology))
    assert full.encode() in [send.packet.encode() for send in sends]
    assert topology.neighbours(22) == (21,)
    assert topology.capabilities(22) == dict.fromkeys(MODULES, True)


def test_replay_of_restarted_node_sends_what_the_real_node_sent() -> None:
    run = "two-nodes-db"
    topology = Topology(CLUSTER, 21, DB_START)
    topology.set_nodes(rows([21, 22]), 0.0)
    play(topology, 22, stream(run, 22, 21), 0.1)
    topology.send_failed(22, 10.0)
    topology.tick(10.1)
    packets = stream(run, 22, 21, 1)
    pongs = [at for at, each in enumerate(packets) if isinstance(decode_internal(each), Pong)]
    sends = play(topology, 22, packets[: pongs[1]], 10.2)
    topology.send_failed(22, 20.0)  # as then, when the real node took its link for failed
    topology.tick(20.1)
    sends += play(topology, 22, packets[pongs[1] :], 20.2)
    assert compared(send.packet for send in sends) == compared(stream(run, 21, 22, 1))
    assert topology.links[22].state is LinkState.UP
    assert topology.capabilities(22) == dict.fromkeys(MODULES, True)


def decode_internal(packet: Packet) -> Message | None:
    return decode(packet) if packet.module == INTERNAL else None


def test_replay_of_introduction_sends_the_row_of_the_real_probe() -> None:
    run = "rerouted-to-probe-23"
    topology = Topology(CLUSTER, 23, DB_START)
    row = NodeDescription("bin:127.0.0.23:5555", "127.0.0.23")
    topology.set_nodes(rows([21, 22], n23=row), 0.0)
    (unknown,) = stream(run, 21, 23)
    assert decode(unknown) == UnknownId()
    (send,) = topology.received(unknown, 0.1)
    passed_on = [decode_internal(packet) for packet in stream(run, 21, 22)]
    (real,) = [each for each in passed_on if isinstance(each, DescriptionUpdate)]
    assert (send.node, decode(send.packet)) == (21, replace(real, path=(23,)))


def test_replay_of_rerouted_node_reaches_it_over_the_other() -> None:
    run = "rerouted-to-probe-23"
    topology = Topology(CLUSTER, 23, DB_START)
    topology.set_nodes(rows([21, 22, 23]), 0.0)
    for now in range(5):
        topology.send_failed(22, now)
        topology.tick(now)
    assert topology.links[22].state is LinkState.DOWN
    packets = stream(run, 21, 23, 1)
    sends = play(topology, 21, packets, 4.1)
    pings = [each for each in packets if isinstance(decode_internal(each), Ping)]
    pongs = [decode(send.packet) for send in sends if isinstance(decode(send.packet), Pong)]
    assert pongs == [Pong((22,))] * len(pings)
    assert topology.links[21].state is LinkState.UP
    assert topology.routes == {21: 21, 22: 21}
    assert topology.neighbours(21) == (22, 23)
    assert topology.capabilities(21) == topology.capabilities(22) == dict.fromkeys(MODULES, True)


def test_replay_of_three_nodes_follows_the_real_nodes_links() -> None:
    run = "three-nodes-discovery"
    topology = Topology(CLUSTER, 22, DB_START)
    topology.set_nodes(rows([21, 22, 24]), 0.0)
    packets = stream(run, 21, 22)
    topology.received(Pong().encode(CLUSTER, 21), 0.1)
    topology.received(Pong().encode(CLUSTER, 24), 0.1)
    seen = []
    for packet in packets:
        play(topology, 21, [packet], 0.2)
        if isinstance(decode_internal(packet), LinkUpdate):
            seen.append(topology.neighbours(21))
    assert seen == [(22, 24), (22,), (22, 24)]
    assert topology.neighbours(24) == (21, 22)
    assert topology.capabilities(21) == topology.capabilities(24) == dict.fromkeys(MODULES, True)
    play(topology, 24, stream(run, 24, 22), 0.3)  # all of it is old
    assert topology.neighbours(24) == (21, 22)


def test_replay_of_real_frames_is_passed_on_as_the_real_node_did() -> None:
    run = "three-nodes-discovery"
    topology = Topology(CLUSTER, 21, DB_START)
    topology.set_nodes(rows([21, 22, 24]), 0.0)
    topology.received(Pong().encode(CLUSTER, 22), 0.1)
    topology.send_failed(24, 0.2)
    sends = play(topology, 24, stream(run, 24, 21), 0.3)
    passed = [send.packet.encode() for send in sends if send.packet.machine_id == 24]
    described, *later = stream(run, 21, 22)[244:]
    assert isinstance(decode(described), DescriptionUpdate)  # no-DB mode alone passes it on
    assert passed == [
        packet.encode() for packet in later if packet.module == INTERNAL and packet.machine_id == 24
    ]
