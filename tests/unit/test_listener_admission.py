"""Which connections a listener keeps: the rules, with connections that are only numbers."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import pytest

from clusterer.listener.admission import KNOWN_PATIENCE, Admission
from clusterer.listener.counters import Counters
from clusterer.settings import Settings
from clusterer.store import ClusterKey, ClusterView
from tests.support.cluster import CLUSTER, node

A, B, STRANGER = "192.0.2.1", "192.0.2.2", "198.51.100.1"


@dataclass(eq=False)
class Fake:
    source: tuple[str, int]
    has_frame: bool = False
    last_frame_at: float = 0.0
    closed: bool = False

    def close(self) -> None:
        self.closed = True


class Case:
    """An admission with nodes 1 (own), 2 at A and 3 at B."""

    def __init__(self, **settings: int) -> None:
        self.counters = Counters()
        self.admission: Admission[Fake] = Admission(Settings(**settings), 1, self.counters)  # type: ignore[arg-type]
        nodes = [node(1, host="192.0.2.9"), node(2, host=A), node(3, host=B)]
        self.admission.use({CLUSTER: ClusterView.of(CLUSTER, 1, nodes)})

    def enter(self, ip: str, *, framed: bool = False, at: float = 0.0) -> Fake | None:
        made = Fake((ip, 4000), framed, at)
        return made if self.admission.admit(made) else None

    def fill(self, ip: str, count: int, *, framed: bool = False, at: float = 0.0) -> list[Fake]:
        made = [self.enter(ip, framed=framed, at=at) for _ in range(count)]
        return [one for one in made if one]


def test_admit_stranger_has_quarter_of_places() -> None:
    case = Case(max_connections=40)
    assert len(case.fill(STRANGER, 40)) == 10
    assert len(case.fill("198.51.100.2", 40)) == 10
    assert case.counters.closed == {"max_connections_per_address": 60}
    assert case.counters.connections_refused == 60
    assert case.counters.connections_open == case.counters.connections_accepted == 20


@pytest.mark.parametrize(("setting", "most"), [(0, 1), (3, 3), (100, 2)])
def test_admit_stranger_heeds_setting_and_total(setting: int, most: int) -> None:
    case = Case(max_connections=2 if setting != 3 else 9, max_connections_per_address=setting)
    assert len(case.fill(STRANGER, 9)) == most


def test_admit_ipv6_network_counts_as_one_address() -> None:
    case = Case(max_connections=100, max_connections_per_address=2)
    assert len([ip for n in range(9) if case.enter(ip := f"2001:db8:1:2:{n}::{n}")]) == 2
    assert case.enter("2001:db8:1:3::1")


def test_admit_own_address_is_no_known_node() -> None:
    """An instance gets no packets from itself: all on its host would be exempt."""
    assert len(Case(max_connections=40).fill("192.0.2.9", 40)) == 10


def test_admit_known_node_is_exempt_from_share() -> None:
    assert len(Case(max_connections=40).fill(A, 40)) == 40


def test_admit_known_node_in_strangers_network_is_exempt() -> None:
    case = Case(max_connections=100, max_connections_per_address=1)
    case.admission.use({CLUSTER: ClusterView.of(CLUSTER, 2, [node(2, host="2001:db8::5")])})
    assert len(case.fill("2001:db8::6", 5)) == 1
    assert len(case.fill("2001:db8::5", 5)) == 5


def test_admit_known_node_displaces_least_important() -> None:
    case = Case(max_connections=4, max_connections_per_address=4)
    known = case.enter(A, framed=True, at=1.0)
    old, new = (case.enter(STRANGER, framed=True, at=at) for at in (2.0, 3.0))
    silent = case.enter(STRANGER, at=4.0)
    order = [silent, old, new]
    for _ in order:
        assert case.enter(B, framed=True, at=9.0)
    assert all(one is not None and one.closed for one in order)
    assert known
    assert not known.closed
    assert case.counters.closed == {"displaced": 3}
    assert case.counters.connections_open == 4


def test_admit_stranger_displaces_none() -> None:
    case = Case(max_connections=4, max_connections_per_address=4)
    assert len(case.fill(STRANGER, 4)) == 4
    assert case.enter("198.51.100.2") is None
    assert case.counters.closed == {"max_connections": 1}


def test_admit_known_node_full_of_known_takes_from_greedy() -> None:
    case = Case(max_connections=6)
    of_a = case.fill(A, 6, framed=True)
    assert len(case.fill(B, 6, framed=True)) == 3
    assert sum(one.closed for one in of_a) == 3
    assert len(case.admission) == 6


def test_admit_known_node_without_connection_always_enters() -> None:
    case = Case(max_connections=1)
    first = case.enter(A, framed=True)
    assert case.enter(B, framed=True)
    assert first
    assert first.closed


def test_patience_known_node_gets_more_time() -> None:
    case = Case()
    assert case.admission.patience_s(STRANGER) == 4.0
    assert case.admission.patience_s(A) == 4.0 * KNOWN_PATIENCE


def test_leave_twice_counts_once() -> None:
    case = Case(max_connections=8)
    first, second = case.fill(STRANGER, 2)
    for _ in range(2):
        case.admission.leave(first)
    assert case.counters.connections_open == 1
    assert case.enter(STRANGER)
    assert case.enter(STRANGER) is None
    case.admission.close_all()
    assert second.closed


def test_reload_that_removes_node_ends_its_exemption() -> None:
    case = Case(max_connections=40)
    case.fill(A, 30)
    case.admission.use({ClusterKey(1, "bin"): ClusterView.of(CLUSTER, 2, [])})
    assert case.enter(A) is None
    assert case.enter(B), "strangers have places of their own"


def test_run_short_keeps_less_for_a_while(caplog: pytest.LogCaptureFixture) -> None:
    case = Case(max_connections=100, max_connections_per_address=100)
    silent = case.fill(STRANGER, 20)
    known = case.fill(A, 20, framed=True)
    with caplog.at_level(logging.WARNING):
        case.admission.run_short()
    assert sum(one.closed for one in silent) == 10
    assert not any(one.closed for one in known)
    assert case.enter(STRANGER) is None
    assert case.enter(B)
    assert len(case.admission) == 30
    assert "may not open another file" in caplog.text


def test_run_short_with_one_connection_keeps_it() -> None:
    case = Case()
    only = case.enter(A)
    case.admission.run_short()
    assert only
    assert not only.closed


def test_admit_after_close_all_refuses_and_counts_nothing() -> None:
    """The kernel's queue may hold a connection that the loop accepts while it ends."""
    case = Case(max_connections=40)
    case.admission.close_all()
    assert case.enter(A) is None
    assert not case.counters.connections_accepted
    assert not case.counters.closed
