"""Probers of several simulated hosts: they answer suspicions, and ping nodes without traffic."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from time import monotonic

import pytest

from clusterer.membership import Condition
from clusterer.membership.suspicions import Kind, Suspicion
from clusterer.prober import checks
from clusterer.prober.answers import Answers
from clusterer.settings import Settings
from clusterer.store import keys
from clusterer.store.suspicions import Opened
from tests.support.cluster import CLUSTER
from tests.support.probing import (
    Hosts,
    audit,
    confirmed_by,
    context_of,
    host_of,
    hosts_on_loopback,
    keep_window_open,
    no_suspicion,
    suspect,
)
from tests.support.processes import LATE_S, wait_until

SETTINGS = {"ping_interval": 0.0, "probe_interval": 0.2}


def test_prober_reached_node_is_confirmed_and_stays_up(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_window_open(monkeypatch)
    hosts.start(1, 2, 3)
    hosts.cut(1, 2)
    assert suspect(hosts, 2, asking=1) is Opened.ASKED
    wait_until(lambda: no_suspicion(hosts))
    assert confirmed_by(hosts, 2) == 3
    assert hosts.condition(2) is Condition.UP


def test_prober_all_refused_node_falls_at_once(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nacks of all hosts suffice: the end of the window is far away."""
    keep_window_open(monkeypatch)
    hosts.start(1, 2, 3)
    hosts.receivers[2].stop()
    assert suspect(hosts, 2, asking=1) is Opened.ASKED
    wait_until(lambda: hosts.condition(2) is Condition.PROBING)
    assert no_suspicion(hosts)


def test_prober_all_unanswered_node_falls_in_a_second(hosts: Hosts) -> None:
    hosts.start(1, 2, 3)
    hosts.cut(1, 2)
    hosts.cut(3, 2)
    began = monotonic()
    suspect(hosts, 2, asking=1)
    wait_until(lambda: hosts.condition(2) is Condition.PROBING)
    assert 0.8 < monotonic() - began < 1.3 + LATE_S


def test_prober_of_the_nodes_own_host_stays_silent(hosts: Hosts) -> None:
    hosts.start(1, 2)
    hosts.cut(1, 2)
    assert suspect(hosts, 2, asking=1) is Opened.ALONE
    assert not [where for where in hosts.connects if where[1] == hosts.node(2).address]


def test_prober_of_two_nodes_host_answers_if_only_one_asked(hosts: Hosts) -> None:
    """The opener could not know that the only other prober is on the node's own host."""
    hosts.start(2)
    views = {CLUSTER: hosts.context.nodes.view(CLUSTER)}
    hosts.receivers[3].stop()
    found = hosts.node(3)
    hosts.context.suspicions.open(found, Kind.SUSPECT, asking=None, reason="test", views=views)
    wait_until(lambda: hosts.condition(3) is Condition.PROBING)


def test_prober_asked_late_in_wide_suspicion_confirms(hosts: Hosts) -> None:
    """Of five hosts only the last reaches the node: the first three that are asked do not."""
    hosts.start(1, 2, 3)
    hosts.cut(1, 2)
    hosts.cut(3, 2)
    suspect(hosts, 2, asking=1)
    wait_until(lambda: hosts.condition(2) is Condition.PROBING)
    hosts.heal()
    assert suspect(hosts, 2, asking=1, kind=Kind.PROBE) is Opened.ASKED
    wait_until(lambda: hosts.condition(2) is Condition.UP)
    assert hosts.node(2).no_tries == 1


def test_prober_more_suspicions_than_checks_take_turns(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else silent nodes keep the prober from a node that is there, for as long as they are."""
    monkeypatch.setattr(checks, "AT_ONCE", 1)
    monkeypatch.setattr(checks, "URGENT_AT_ONCE", 0)
    monkeypatch.setattr("clusterer.prober.answers.BETWEEN_S", 0.0)
    first = set()
    with hosts_on_loopback(settings, monkeypatch, 6) as hosts:
        context = context_of(hosts, settings, {host_of(1)})
        answers = Answers(context)
        for _ in range(10):
            hosts.connects.clear()
            for node_ in (hosts.node(i) for i in range(2, 7)):
                now_ms = context.paths.now_ms()
                round_ = Suspicion(
                    now_ms, node_.version, Kind.PROBE, frozenset({1}), frozenset(), all_asked=False
                )
                name = keys.suspicions(*CLUSTER)
                hosts.context.redis.hset(name, str(node_.machine_id), str(round_))
            answers.rung()
            answers.turn()
            context.checks.turn(0.0)
            first |= {address for _, address in hosts.connects[:1]}
            context.checks.drop()
    assert len(first) > 1


def test_prober_silent_node_without_traffic_falls(hosts: Hosts, settings: Settings) -> None:
    hosts.start(1, 2, 3, settings=replace(settings, ping_interval=0.4, send_timeout=0.3))
    hosts.cut(1, 2)
    hosts.cut(3, 2)
    wait_until(lambda: hosts.condition(2) is Condition.PROBING)
    assert {hosts.condition(1), hosts.condition(3)} == {Condition.UP}
    assert audit(hosts, 1)[0][b"reason"].startswith(b"ping failed")


def test_prober_alone_refused_ping_sets_node_probing_at_once(
    hosts: Hosts, settings: Settings
) -> None:
    hosts.receivers[1].stop()
    hosts.start(1, settings=replace(settings, ping_interval=0.4))
    wait_until(lambda: hosts.condition(1) is Condition.PROBING)
    (event,) = audit(hosts, 1)
    assert (event[b"event"], event[b"by"]) == (b"suspected", b"prober 1")
    assert event[b"reason"] == b"ping failed: Connection refused"


def test_prober_pings_are_shared_by_other_hosts(hosts: Hosts, settings: Settings) -> None:
    hosts.start(1, 2, 3, settings=replace(settings, ping_interval=0.4))
    known = [prober._presence for prober in hosts.probers.values()]
    wait_until(lambda: all(len(each.fresh(CLUSTER)) == 3 for each in known))
    hosts.connects.clear()
    wait_until(lambda: len({source for source, _ in hosts.connects}) == 3)
    assert all(source != address[0] for source, address in hosts.connects)


@pytest.mark.parametrize("count", [2, 6])
def test_prober_pings_of_a_node_are_two_per_interval(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Whatever the number of hosts."""
    with hosts_on_loopback(settings, monkeypatch, count) as hosts:
        pinging = replace(settings, ping_interval=1.0)
        hosts.start(*range(1, count + 1), settings=pinging)
        known = [prober._presence for prober in hosts.probers.values()]
        wait_until(lambda: all(len(each.fresh(CLUSTER)) == count for each in known))
        began = monotonic()
        hosts.connects.clear()

        def pings() -> list[int]:
            to = Counter(address for _, address in hosts.connects)
            return [to[hosts.receivers[i].address] for i in range(1, count + 1)]

        wait_until(lambda: min(pings()) >= 4)
        rounds = (monotonic() - began) / (pinging.ping_interval / 2)
        assert max(pings()) <= rounds + 2, "a round that had begun, and the present one"
