"""Nodes that are down: counted together, each as if it had been visited by every packet."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from clusterer.delivery.batch import Batch
from clusterer.delivery.peer import Peer
from clusterer.delivery.resting_nodes import RestingNodes, not_resting
from clusterer.delivery.roster import RECORDS_PER_S, Roster, Rosters
from clusterer.membership import Node, State
from clusterer.membership.views import ClusterKey, ClusterView
from clusterer.store.deliveries import Claim, Rest
from tests.support.cluster import node
from tests.support.frames import frame

KEY = ClusterKey(1, "bin")
A, B, C = (replace(node(n, state=State.DOWN), generation=5) for n in (2, 3, 4))
DESTINATIONS = [each.destination for each in (A, B, C)]
CLAIM = Claim(1, 10, {KEY: 10}, {KEY: 7}, {}, {}, frozenset())


def roster(*nodes: Node) -> Roster:
    return Roster(ClusterView.of(KEY, 1, nodes))


def resting(
    claim: Claim = CLAIM,
) -> tuple[RestingNodes, dict[ClusterKey, int], dict[str, Peer]]:
    """Return A, B and C as resting nodes, the counts at their head, and the destinations."""
    counts, made = dict(claim.counts), dict[str, Peer]()
    nodes = RestingNodes(claim, Rosters(), counts, made)
    nodes.take_over(KEY, roster(A, B, C, node(1, state=State.DOWN)))
    nodes.look()
    return nodes, counts, made


def read(nodes: RestingNodes, counts: dict[ClusterKey, int], sequence: int, n: int) -> None:
    """Let the nodes pass a packet by."""
    fields = [b"cluster", b"1", b"protocol", b"bin", b"n", b"%d" % n, b"packets", b"1"]
    batch = Batch([(b"%d-1" % sequence, [*fields, b"frames", frame(0)])], sequence - 1)
    assert batch.packets == 1
    nodes.pass_by(batch)
    counts[KEY] = n


def test_record_of_nodes_never_recorded_counts_all_as_skipped() -> None:
    nodes, counts, _ = resting()
    read(nodes, counts, 11, 11)
    assert nodes.record(11) == [Rest(DESTINATIONS, 11, 11, skipped=11, lost=0)]
    assert nodes.record(11) == []
    read(nodes, counts, 12, 12)
    assert nodes.record(12) == [Rest(DESTINATIONS, 12, 12, skipped=1, lost=0)]


def test_record_after_claim_continues_each_recorded_count() -> None:
    committed = {DESTINATIONS[0]: 10, DESTINATIONS[1]: 8}
    nodes, counts, _ = resting(replace(CLAIM, committed=committed, committed_counts=committed))
    rests = nodes.record(10)
    assert {tuple(rest.destinations): rest.skipped for rest in rests} == {
        (DESTINATIONS[1],): 2,
        (DESTINATIONS[2],): 10,
    }
    read(nodes, counts, 11, 11)
    assert nodes.record(11) == [Rest(DESTINATIONS, 11, 11, skipped=1, lost=0)]


@pytest.mark.parametrize(("n", "skipped", "lost"), [(16, 11, 5), (4, 11, 0)])
def test_count_that_jumps_is_lost_only_if_it_goes_on(n: int, skipped: int, lost: int) -> None:
    nodes, counts, _ = resting()
    read(nodes, counts, 11, n)
    made = nodes.made_of(A, 11)
    assert made.counters == Counter(skipped=skipped, lost=lost)
    assert (made.sent_offset, made.sent_n) == (11, n)
    assert nodes.record(11) == [Rest(DESTINATIONS, 11, n, skipped=skipped, lost=lost)]


def test_destination_made_after_record_has_nothing_to_count() -> None:
    nodes, counts, made = resting()
    read(nodes, counts, 11, 11)
    nodes.record(11)
    made[DESTINATIONS[0]] = nodes.made_of(A, 11)
    assert not +made[DESTINATIONS[0]].counters
    assert made[DESTINATIONS[0]].is_recorded()
    assert list(nodes.members()[KEY]) == DESTINATIONS[1:]
    made |= dict.fromkeys(DESTINATIONS, made[DESTINATIONS[0]])
    nodes.look()
    assert not nodes


@pytest.mark.parametrize(
    ("claim", "expected"),
    [
        (CLAIM, set()),
        (replace(CLAIM, guarded=frozenset({DESTINATIONS[1]})), {DESTINATIONS[1]}),
        (replace(CLAIM, since_ms={KEY: 4}), set(DESTINATIONS)),
        (
            replace(CLAIM, since_ms={KEY: 4}, committed_counts={DESTINATIONS[0]: 1}),
            set(DESTINATIONS[1:]),
        ),
        (replace(CLAIM, committed={DESTINATIONS[0]: 11}), set(DESTINATIONS)),
        (replace(CLAIM, counts={}), set(DESTINATIONS)),
    ],
)
def test_not_resting_has_nodes_whose_count_is_unknown(claim: Claim, expected: set[str]) -> None:
    assert set(not_resting(claim, KEY, roster(A, B, C), {})) == expected
    up = roster(*(replace(each, state=State.UP) for each in (A, B, C)))
    assert set(not_resting(claim, KEY, up, up.nodes)) == expected


def test_not_resting_has_nodes_that_are_up() -> None:
    up = replace(A, state=State.UP)
    assert list(not_resting(CLAIM, KEY, roster(up, B), {})) == [up.destination]


def test_records_of_many_senders_fall_due_one_after_the_other() -> None:
    rosters = Rosters()
    due = [rosters.record_at(RECORDS_PER_S // 10, 100.0, 5.0) for _ in range(200)]
    assert due[0] == due[10] == 105.0
    assert due[-1] == pytest.approx(120.0)
    assert rosters.record_at(10, 200.0, 0.5) == 200.5


def test_roster_since_names_gone_new_and_changed_nodes() -> None:
    before, up = roster(A, B), replace(B, state=State.UP)
    after = roster(up, C)
    assert after.since(before) == ({DESTINATIONS[0]: A}, {DESTINATIONS[1]: up, DESTINATIONS[2]: C})
    assert after.since(before) is after.since(before)
    assert after.since(after) == ({}, {})
