"""Probers of several simulated hosts: real threads, real sockets, a real Redis."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic

import pytest

from clusterer.membership import Condition
from clusterer.membership.suspicions import Kind
from clusterer.settings import Settings
from clusterer.store.suspicions import Opened
from tests.support.cluster import CLUSTER
from tests.support.probing import Hosts, hosts_on_loopback
from tests.support.processes import wait_until

SETTINGS = {"ping_interval": 0.0, "probe_interval": 0.2}


@pytest.fixture
def hosts(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosts]:
    """Three hosts without probers."""
    with hosts_on_loopback(settings, monkeypatch, 3, duration=1) as made:
        yield made


def suspect(hosts: Hosts, machine_id: int, asking: int, kind: Kind = Kind.SUSPECT) -> Opened:
    views = {CLUSTER: hosts.context.nodes.view(CLUSTER)}
    return hosts.context.suspicions.open(
        hosts.node(machine_id), kind, asking=asking, reason="test", views=views
    )


def no_suspicion(hosts: Hosts) -> bool:
    return not any(hosts.context.suspicions.all([CLUSTER]).values())


def confirmed_by(hosts: Hosts, machine_id: int) -> int:
    value = hosts.context.redis.hget(f"clusterer:{CLUSTER}:confirmed", str(machine_id))
    return int((value or b"0 0").split()[1])


def test_prober_reached_node_is_confirmed_and_stays_up(hosts: Hosts) -> None:
    hosts.start(1, 2, 3)
    hosts.cut(1, 2)
    began = monotonic()
    assert suspect(hosts, 2, asking=1) is Opened.ASKED
    wait_until(lambda: no_suspicion(hosts), 3)
    assert monotonic() - began < 0.9
    assert confirmed_by(hosts, 2) == 3
    assert hosts.condition(2) is Condition.UP


def test_prober_all_refused_node_falls_at_once(hosts: Hosts) -> None:
    hosts.start(1, 2, 3)
    hosts.receivers[2].stop()
    began = monotonic()
    assert suspect(hosts, 2, asking=1) is Opened.ASKED
    wait_until(lambda: hosts.condition(2) is Condition.PROBING, 3)
    assert monotonic() - began < 0.5
    assert no_suspicion(hosts)


def test_prober_all_unanswered_node_falls_in_a_second(hosts: Hosts) -> None:
    hosts.start(1, 2, 3)
    hosts.cut(1, 2)
    hosts.cut(3, 2)
    began = monotonic()
    suspect(hosts, 2, asking=1)
    wait_until(lambda: hosts.condition(2) is Condition.PROBING, 3)
    assert 0.8 < monotonic() - began < 1.3


def test_prober_of_the_nodes_own_host_stays_silent(hosts: Hosts) -> None:
    hosts.start(1, 2)
    hosts.cut(1, 2)
    assert suspect(hosts, 2, asking=1) is Opened.ALONE
    assert not [where for where in hosts.connects if where[1] == hosts.node(2).address]
