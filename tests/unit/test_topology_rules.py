"""What one `Topology` sends for what happens to it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from clusterer.errors import WireError
from clusterer.topology import (
    CapabilityUpdate,
    DescriptionUpdate,
    FullTopology,
    LinkState,
    LinkUpdate,
    Message,
    NodeDescription,
    NodeEntry,
    Ping,
    Pong,
    Send,
    Topology,
    UnknownId,
    decode,
)
from clusterer.topology.others import MAX_CAPABILITIES, MAX_NAME
from tests.support.topologies import CLUSTER, STARTED, rows

OWN = 1
UP, PROBE, DOWN = LinkState.UP, LinkState.PROBE, LinkState.DOWN


def shown(sends: list[Send]) -> list[tuple[int, Message | None]]:
    """Return receiver and message of each packet, which must be of the own node."""
    assert all(send.packet.machine_id == OWN for send in sends)
    return [(send.node, decode(send.packet)) for send in sends]


def passed_on(sends: list[Send]) -> list[tuple[int, int | None, Message | None]]:
    return [(send.node, send.packet.machine_id, decode(send.packet)) for send in sends]


def take(topology: Topology, source: int, message: Message, now: float = 0.0) -> list[Send]:
    return topology.received(message.encode(CLUSTER, source), now)


def started(*others: int) -> Topology:
    """Return a topology of which ``others`` are the nodes whose link is up, and 9 is one more."""
    topology = Topology(CLUSTER, OWN, STARTED)
    topology.set_nodes(rows((OWN, *others, 9)), 0.0)
    for node in others:
        take(topology, node, Pong())
    topology.send_failed(9, 0.0)
    return topology


def down(topology: Topology, node: int, now: float = 0.0) -> float:
    """Let ``node``, whose link is not up, be silent until its link is down."""
    while topology.links[node].state is not DOWN:
        now += 1.0
        for other in topology.links.keys() - {node}:
            topology.heard(other, now)
            topology.sent(other, now)
        topology.tick(now)
        assert now < 20
    return now


# ---------------------------------------------------------------------------------------- nodes
def test_nodes_new_are_pinged_at_once() -> None:
    topology = Topology(CLUSTER, OWN, STARTED)
    sends = topology.set_nodes(rows([1, 2, 3]), 0.0)
    assert shown(sends) == [(2, Ping(want_list=True)), (3, Ping(want_list=True))]
    assert {node: link.state for node, link in topology.links.items()} == {2: PROBE, 3: PROBE}
    assert shown(topology.set_nodes(rows([1, 2, 3, 4]), 0.1)) == [(4, Ping(want_list=True))]


@pytest.mark.parametrize("own", [None, NodeDescription("bin:127.0.0.1:5555", enabled=False)])
def test_nodes_without_enabled_own_row_send_nothing(own: NodeDescription | None) -> None:
    topology = started(2)
    nodes = rows([2, 9]) | ({} if own is None else {OWN: own})
    assert topology.set_nodes(nodes, 1.0) == []
    assert topology.links == {}
    assert take(topology, 2, Ping(want_list=False), 1.0) == []
    assert topology.tick(2.0) == []
    assert topology.send_failed(2, 2.0) == []
    assert topology.reachable == frozenset()
    assert shown(topology.set_nodes(rows([1, 2]), 3.0)) == [(2, Ping(want_list=True))]


def test_nodes_removed_or_disabled_are_told_to_the_others() -> None:
    topology = started(2, 3, 4)
    disabled = replace(rows([3])[3], enabled=False)
    sends = topology.set_nodes(rows([1, 2], n3=disabled), 1.0)
    told = [(node, message) for node, message in shown(sends) if isinstance(message, LinkUpdate)]
    assert {(node, message.neighbour, message.up) for node, message in told} == {
        (2, 3, False),
        (2, 4, False),
    }
    assert set(topology.links) == {2}


def test_nodes_with_new_address_are_pinged_again() -> None:
    topology = started(2, 3)
    sends = topology.set_nodes(rows([1, 3, 9], n2=NodeDescription("bin:127.0.0.2:6666")), 1.0)
    assert [(node, message.up) for node, message in shown(sends) if isinstance(message, LinkUpdate)]
    assert topology.links[2].state is PROBE
    assert topology.links[3].state is UP
    assert (2, Ping(want_list=True)) in shown(topology.tick(1.0))


def test_nodes_with_other_priority_keep_their_links() -> None:
    topology = started(2, 3)
    nodes = {node: replace(row, priority=7) for node, row in rows([1, 2, 3, 9]).items()}
    assert topology.set_nodes(nodes, 1.0) == []
    assert topology.links[2].state is UP


# ---------------------------------------------------------------------------------------- pings
def test_ping_is_answered_with_the_list_if_wanted() -> None:
    topology = started(2, 3)
    assert shown(take(topology, 2, Ping(want_list=False))) == [(2, Pong())]
    assert shown(take(topology, 2, Ping(want_list=True))) == [(2, Pong((3, 9)))]


def test_ping_of_node_that_is_down_gets_pong_and_ping() -> None:
    topology = started(2)
    now = down(topology, 9)
    sends = take(topology, 9, Ping(want_list=True), now)
    assert shown(sends) == [(9, Pong((2,))), (9, Ping(want_list=True))]
    assert topology.links[9].state is PROBE


def test_ping_unanswered_leads_to_down_after_the_retries() -> None:
    topology = Topology(CLUSTER, OWN, STARTED)
    row = NodeDescription("bin:127.0.0.2:5555", no_ping_retries=2)
    assert len(topology.set_nodes(rows([1], n2=row), 0.0)) == 1
    times = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 61.9, 62.0)
    assert [len(topology.tick(now)) for now in times] == [0, 1, 0, 1, 0, 0, 0, 1]
    assert topology.links[2].state is PROBE


def test_ping_of_silent_neighbour_ends_in_probe() -> None:
    topology = started(2, 3)
    topology.heard(3, 4.0)
    topology.sent(3, 4.0)
    assert (2, Ping(want_list=False)) in shown(topology.tick(4.0))
    topology.heard(3, 5.0)
    sends = shown(topology.tick(5.0))
    assert sends[0] == (2, Ping(want_list=True))
    assert sends[1] == (3, LinkUpdate(1, STARTED, 2, up=False, path=(OWN,)))
    assert topology.links[2].state is PROBE
    assert topology.links[2].since == 5.0


@pytest.mark.parametrize("message", [Pong(), Ping(want_list=False), UnknownId()])
def test_ping_is_answered_by_any_packet_of_the_node(message: Message) -> None:
    topology = started(2)
    topology.tick(4.0)
    take(topology, 2, message, 4.1)
    topology.tick(5.1)
    assert topology.links[2].pings == (3 if isinstance(message, UnknownId) else 2)


def test_ping_is_not_answered_by_a_packet_passed_on() -> None:
    topology = started(2, 3)
    topology.tick(4.0)
    take(topology, 2, LinkUpdate(0, STARTED, 3, up=True, path=(2, 3)), 4.1)
    topology.tick(5.0)
    assert topology.links[2].state is PROBE
    assert topology.links[3].state is UP


@pytest.mark.parametrize("message", [Ping(want_list=True), Pong(), UnknownId()])
def test_message_of_unknown_node_is_ignored(message: Message) -> None:
    topology = started(2)
    assert take(topology, 5, message) == []
    assert topology.received(message.encode(CLUSTER, 5)._replace(machine_id=None), 0.0) == []
    topology.heard(5, 1.0)
    topology.sent(5, 1.0)
    assert set(topology.links) == {2, 9}


# ---------------------------------------------------------------------------------------- pongs
def test_pong_brings_the_link_up_and_tells_all() -> None:
    topology = started(2)
    topology.tick(0.5)
    sends = shown(take(topology, 9, Pong((7,)), 0.6))
    assert topology.links[9].state is UP
    own = NodeEntry(OWN, None, 0, 0, (2, 9))
    other = NodeEntry(2, rows([2])[2], -1, 0, ())
    assert sends == [
        (2, LinkUpdate(0, STARTED, 9, up=True, path=(OWN,))),
        (9, FullTopology(1, STARTED, (own, other), (OWN,))),
    ]


def test_pong_that_lists_a_node_gets_no_row_of_it() -> None:
    topology = started(2)
    topology.tick(0.5)
    (_, full) = shown(take(topology, 9, Pong((2,)), 0.6))
    assert isinstance(full[1], FullTopology)
    assert [entry.description for entry in full[1].entries] == [None, None]


def test_pong_too_late_still_brings_a_probed_link_up() -> None:
    topology = started(2)
    topology.tick(0.5)
    assert take(topology, 9, Pong(), 3.0)
    assert topology.links[9].state is UP


@pytest.mark.parametrize(("heard", "state"), [(4.0, DOWN), (8.5, UP)])
def test_pong_of_node_that_is_down_counts_with_other_packets(
    heard: float, state: LinkState
) -> None:
    topology = started(2)
    assert down(topology, 9) < 6.0
    topology.heard(9, heard)
    take(topology, 9, Pong(), 9.0)
    assert topology.links[9].state is state


def test_pong_of_neighbour_changes_nothing() -> None:
    assert take(started(2), 2, Pong((9,)), 0.5) == []


# --------------------------------------------------------------------------------------- sends
def test_send_failed_restarts_the_pings_and_tells_the_others() -> None:
    topology = started(2, 3)
    sends = shown(topology.send_failed(2, 1.0))
    assert sends == [(3, LinkUpdate(1, STARTED, 2, up=False, path=(OWN,)))]
    assert topology.links[2].state is PROBE
    assert topology.send_failed(2, 1.0) == []
    assert (2, Ping(want_list=True)) in shown(topology.tick(1.5))


def test_send_failed_of_each_ping_ends_in_down() -> None:
    topology = started(2)
    now = 0.0
    while topology.links[9].state is not DOWN:
        now += 1.0
        for node, _packet in topology.tick(now):
            if node == 9:
                topology.send_failed(9, now)
        assert now < 10
    assert now == 4.0


# --------------------------------------------------------------------------------- introduction
def test_unknown_id_is_answered_with_the_own_row_then_a_ping() -> None:
    topology = started(2)
    sends = shown(take(topology, 9, UnknownId(), 0.5))
    assert sends == [(9, DescriptionUpdate(rows([1])[1], (OWN,)))]
    assert (9, Ping(want_list=True)) in shown(topology.tick(1.0))


def test_unknown_id_of_neighbour_ends_the_link() -> None:
    topology = started(2, 3)
    sends = shown(take(topology, 2, UnknownId(), 0.5))
    assert [node for node, _ in sends] == [2, 3]
    assert topology.links[2].state is PROBE


def test_unknown_id_and_pong_in_turn_change_the_link_once_a_tick() -> None:
    topology = started(2, 3)
    told = [
        send
        for _ in range(100)
        for message in (UnknownId(), Pong())
        for send in take(topology, 2, message, 0.5)
        if send.node == 3
    ]
    assert len(told) == 1
    topology.tick(1.0)
    take(topology, 2, Pong(), 1.1)
    assert topology.links[2].state is UP


def test_description_of_a_node_is_ignored() -> None:
    message = DescriptionUpdate(NodeDescription("bin:127.0.0.9:1"), (9,))
    assert take(started(2), 9, message) == []


@pytest.mark.parametrize(("kind", "version"), [(8, 1), (0, 2)])
def test_message_unknown_is_ignored(kind: int, version: int) -> None:
    packet = Ping(want_list=True).encode(CLUSTER, 2)._replace(type=kind, version=version)
    assert started(2).received(packet, 0.0) == []


def test_message_invalid_raises_and_changes_nothing() -> None:
    topology = started(2)
    before = dict(topology.links)
    with pytest.raises(WireError, match="LS_UPDATE"):
        topology.received(UnknownId().encode(CLUSTER, 2)._replace(type=2), 0.0)
    assert topology.links == before


# --------------------------------------------------------------------------------------- updates
def update(seq: int, neighbour: int, *, up: bool = True, time: int = STARTED) -> LinkUpdate:
    return LinkUpdate(seq, time, neighbour, up, (2,))


def test_update_changes_neighbours_and_is_passed_on() -> None:
    topology = started(2, 3, 4)
    message = update(0, 9)
    sends = passed_on(take(topology, 2, message))
    passed = replace(message, path=(2, OWN))
    assert sends == [(3, 2, passed), (4, 2, passed)]
    assert topology.neighbours(2) == (9,)
    take(topology, 2, update(1, 9, up=False))
    assert topology.neighbours(2) == ()
    assert {topology.links[node].state for node in (2, 3, 4)} == {UP}


def test_update_is_not_passed_to_nodes_that_had_it() -> None:
    message = replace(update(0, 9), path=(2, 4))
    assert [send.node for send in take(started(2, 3, 4), 2, message)] == [3]


@pytest.mark.parametrize(("length", "passed"), [(25, 1), (26, 0)])
def test_update_with_long_path_is_taken_but_not_passed_on(length: int, passed: int) -> None:
    topology = started(2, 3)
    message = replace(update(0, 9), path=(2, *range(100, 99 + length)))
    assert len(take(topology, 2, message)) == passed
    assert topology.neighbours(2) == (9,)


def test_update_too_large_to_pass_on_is_taken() -> None:
    topology = started(2, 3)
    names = tuple((f"{number:050}", True) for number in range(1166))
    message = CapabilityUpdate(0, STARTED, ((2, names), (3, (("x" * 47, True),))), False, (2,))
    packet = message.encode(CLUSTER, 2)
    room = 65_515 - len(packet.encode())
    assert 0 <= room < 200
    message = replace(message, nodes=((2, names), (3, (("x" * (47 + room), True),))))
    assert take(topology, 2, message) == []
    assert len(topology.capabilities(2)) == MAX_CAPABILITIES


@pytest.mark.parametrize(
    ("first", "second", "path", "taken"),
    [
        ((4, 0), (5, 0), (2,), True),
        ((4, 0), (4, 0), (2,), False),
        ((4, 0), (3, 0), (2,), False),
        ((0, 0), (0, 0), (2,), False),
        ((0, 0), (0, 1), (2,), True),
        ((4, 0), (0, 0), (2,), True),
        ((4, 0), (0, 0), (2, 3), False),
        ((4, 0), (0, 1), (2, 3), True),
        ((4, 0), (1, 1), (2, 3), True),
        ((4, 5), (5, 4), (2, 3), True),
    ],
)
def test_update_is_taken_if_number_or_time_is_newer(
    first: tuple[int, int], second: tuple[int, int], path: tuple[int, ...], taken: bool
) -> None:
    topology = started(2)
    take(topology, 2, update(first[0], 9, time=STARTED + first[1]))
    message = LinkUpdate(second[0], STARTED + second[1], 9, up=False, path=path)
    take(topology, 2, message)
    assert topology.neighbours(2) == (() if taken else (9,))


def test_update_of_nodes_without_row_is_left_out() -> None:
    topology = started(2)
    take(topology, 2, update(0, 77))
    assert topology.neighbours(2) == ()
    assert topology.neighbours(77) == ()
    take(topology, 2, update(1, 9))
    topology.set_nodes(rows([1, 2]), 0.0)
    assert topology.neighbours(2) == ()


def test_update_down_about_self_restarts_the_link() -> None:
    topology = started(2, 3)
    sends = take(topology, 2, update(0, OWN, up=True))
    assert [send.packet.machine_id for send in sends] == [2]
    assert topology.links[2].state is UP
    sends = take(topology, 2, update(1, OWN, up=False))
    assert [send.packet.machine_id for send in sends] == [OWN, 2]
    assert topology.links[2].state is PROBE


def test_update_up_about_self_restarts_a_link_that_is_down() -> None:
    topology = started(2)
    now = down(topology, 9)
    take(topology, 9, LinkUpdate(0, STARTED, OWN, up=True, path=(9, 2)), now)
    assert topology.links[9].state is PROBE
    assert (9, Ping(want_list=True)) in shown(topology.tick(now))


# ---------------------------------------------------------------------------------- all links
def full(seq: int, *entries: NodeEntry, source: int = 2) -> FullTopology:
    return FullTopology(seq, STARTED, entries, (source,))


def entry(node: int, seq: int, *neighbours: int, time: int = 0) -> NodeEntry:
    return NodeEntry(node, None, seq, time, neighbours)


def test_full_topology_replaces_neighbours_of_newer_entries() -> None:
    topology = started(2, 3)
    take(topology, 9, LinkUpdate(5, STARTED, 3, up=True, path=(9, 3)))
    message = full(
        0,
        entry(2, -1, OWN, 9, 77),
        entry(3, -1, 9),
        entry(9, 5, 2),
        entry(OWN, 8, 9),
        entry(77, 1, 2),
    )
    sends = passed_on(take(topology, 2, message))
    assert sends == [(3, 2, replace(message, path=(2, OWN)))]
    assert [topology.neighbours(node) for node in (OWN, 2, 3, 9)] == [(2, 3), (1, 9), (), (3,)]
    take(topology, 2, full(1, entry(2, -1, 3), entry(9, 6, 2)))
    assert [topology.neighbours(node) for node in (2, 9)] == [(3,), (2,)]
    assert take(topology, 2, full(1, entry(2, -1, 9))) == []


def test_full_topology_says_nothing_of_links_to_its_source() -> None:
    topology = started(2, 3)
    take(topology, 3, LinkUpdate(0, STARTED, 2, up=True, path=(3,)))
    take(topology, 2, full(0, entry(2, -1, 3), entry(3, 1, 9)))
    assert topology.neighbours(3) == (2, 9)


def test_full_topology_sets_the_number_of_the_source() -> None:
    topology = started(2)
    take(topology, 2, update(7, 9))
    take(topology, 2, full(0, entry(2, 3)))
    take(topology, 2, update(3, 9))
    assert topology.neighbours(2) == ()
    take(topology, 2, update(4, 9))
    assert topology.neighbours(2) == (9,)


def test_full_topology_that_lists_self_restarts_a_down_link() -> None:
    topology = started(2)
    now = down(topology, 9)
    take(topology, 2, full(0, entry(2, -1, 9), entry(9, 0, OWN)), now)
    assert topology.links[9].state is PROBE


def test_full_topology_of_disabled_node_changes_no_link() -> None:
    topology = started(2)
    topology.set_nodes(rows([1, 2], n9=NodeDescription("bin:127.0.0.9:5555", enabled=False)), 0.0)
    take(topology, 2, full(0, entry(2, -1, 9), entry(9, 0, OWN)))
    assert set(topology.links) == {2}
    assert topology.neighbours(9) == (OWN,)


def test_full_topology_of_a_large_cluster_fits_into_a_frame() -> None:
    ids = range(1, 129)
    topology = Topology(CLUSTER, OWN, STARTED)
    topology.set_nodes(rows(ids), 0.0)
    for node in ids[1:]:
        message = FullTopology(0, STARTED, (entry(node, 0, *ids),), (node,))
        take(topology, node, message)
    for node in ids[1:-1]:
        take(topology, node, Pong(tuple(ids)))
    sends = shown(take(topology, 128, Pong(tuple(ids))))
    last = sends[-1][1]
    assert isinstance(last, FullTopology)
    assert last.entries[0].neighbours == tuple(ids[1:])
    assert len(last.entries) > 60


# -------------------------------------------------------------------------------- capabilities
def test_capabilities_are_stored_and_passed_on_without_reply() -> None:
    topology = started(2, 3)
    states = (("dialog-dlg-repl", True), ("usrloc-contact-repl", False))
    message = CapabilityUpdate(0, STARTED, ((2, states), (OWN, states), (77, states)), True, (2,))
    sends = passed_on(take(topology, 2, message))
    assert sends == [(3, 2, replace(message, want_reply=False, path=(2, OWN)))]
    assert topology.capabilities(2) == dict(states)
    assert topology.capabilities(OWN) == topology.capabilities(77) == {}
    change = CapabilityUpdate(1, STARTED, ((2, (("dialog-dlg-repl", False),)),), False, (2,))
    take(topology, 2, change)
    assert topology.capabilities(2) == dict(states) | {"dialog-dlg-repl": False}


def test_capabilities_beyond_the_limit_are_not_kept() -> None:
    topology = started(2)
    for seq in range(3):
        names = tuple((f"{seq}-{number}", True) for number in range(50))
        take(topology, 2, CapabilityUpdate(seq, STARTED, ((2, names),), False, (2,)))
    take(topology, 2, CapabilityUpdate(3, STARTED, ((2, (("0-1", False),)),), False, (2,)))
    assert len(topology.capabilities(2)) == MAX_CAPABILITIES
    assert topology.capabilities(2)["0-1"] is False


def test_capability_with_a_long_name_is_not_kept() -> None:
    topology = started(2)
    names = (("x" * MAX_NAME, True), ("x" * (MAX_NAME + 1), True))
    take(topology, 2, CapabilityUpdate(0, STARTED, ((2, names),), False, (2,)))
    assert topology.capabilities(2) == {"x" * MAX_NAME: True}


# -------------------------------------------------------------------------------- reachability
def test_route_is_the_link_or_the_shortest_way_by_priority() -> None:
    topology = Topology(CLUSTER, OWN, STARTED)
    preferred = NodeDescription("bin:127.0.0.4:5555", priority=10)
    topology.set_nodes(rows([1, 2, 3, 5, 6, 7], n4=preferred), 0.0)
    for node in (2, 3, 4):
        take(topology, node, Pong())
    take(topology, 2, full(0, entry(2, -1, OWN, 3, 5, 6)))
    take(topology, 4, full(0, entry(4, -1, OWN, 5), source=4))
    assert topology.routes == {2: 2, 3: 3, 4: 4, 5: 4, 6: 2}
    assert topology.reachable == {2, 3, 4, 5, 6}
    assert (topology.next_hop(5), topology.next_hop(7)) == (4, None)


def test_route_over_several_nodes_keeps_the_first() -> None:
    topology = started(2)
    topology.set_nodes(rows([1, 2, 3, 9]), 0.0)
    take(topology, 2, full(0, entry(2, -1, 3), entry(3, 0, 9), entry(9, 0, 2)))
    assert topology.routes == {2: 2, 3: 2, 9: 2}
