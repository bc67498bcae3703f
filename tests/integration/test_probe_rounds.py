"""The probe job beside probers: rounds, suspicions left behind, disabled nodes, void records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from clusterer.membership import Condition, Event, Node
from clusterer.membership.suspicions import Kind
from clusterer.services import Context
from clusterer.services.periodic import probe
from clusterer.settings import Settings
from clusterer.store import Cause, keys
from clusterer.store.suspicions import Opened
from tests.support.cluster import CLUSTER
from tests.support.probing import Hosts
from tests.support.processes import LATE_S, wait_until

SETTINGS = {"ping_interval": 0.0, "probe_interval": 0.2}


@pytest.fixture
def hosts(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> Hosts:
    """No address of the hosts is the probe job's own."""
    monkeypatch.setattr(probe, "is_local", lambda host: False)
    return hosts


@pytest.fixture
def pinging(hosts: Hosts, settings: Settings) -> Iterator[Context]:
    """The context of a job that enables no disabled node without an answer."""
    context = Context(replace(settings, reenable="probe"))
    yield context
    context.close()


def fail(hosts: Hosts, machine_id: int, times: int = 1) -> None:
    for _ in range(times):
        hosts.context.nodes.observe(hosts.node(machine_id), Event.SEND_FAILED, Cause("test"))


def due_in_s(hosts: Hosts, machine_id: int) -> float:
    due = hosts.context.redis.zscore(f"clusterer:{CLUSTER}:due", str(machine_id))
    assert isinstance(due, float)
    return due / 1000 - hosts.context.nodes.now()


def run_until(context: Context, hosts: Hosts, machine_id: int, condition: Condition) -> None:
    def reached() -> bool:
        probe.run(context)
        return hosts.condition(machine_id) is condition

    wait_until(reached)


def test_probe_round_with_prober_elsewhere_pings_nothing(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinged: list[int] = []

    def ping_all(nodes: Iterable[Node]) -> dict[object, str]:
        pinged.extend(found.machine_id for found in nodes)
        return {}

    monkeypatch.setattr(probe, "ping_all", ping_all)
    hosts.start(1)
    fail(hosts, 2)
    run_until(hosts.context, hosts, 2, Condition.UP)
    assert pinged == []


def test_probe_round_refused_by_all_disables(hosts: Hosts) -> None:
    hosts.receivers[2].stop()
    hosts.start(1, 3)
    fail(hosts, 2)
    run_until(hosts.context, hosts, 2, Condition.DISABLED)
    assert hosts.node(2).no_tries == 3
    events: Any = hosts.context.redis.xrevrange(keys.events(CLUSTER.cluster_id), count=1)
    assert events[0][1][b"reason"] == b"Connection refused"


def test_probe_round_from_cut_off_host_disables_nothing(hosts: Hosts) -> None:
    """The job's own host does not count: hosts 1 and 3 reach node 2."""
    hosts.start(1, 3)
    hosts.cut(1, 2)
    fail(hosts, 2)
    run_until(hosts.context, hosts, 2, Condition.UP)


def test_probe_only_own_host_has_prober_pings_as_ever(hosts: Hosts) -> None:
    hosts.start(2)
    fail(hosts, 2)
    probe.run(hosts.context)
    run_until(hosts.context, hosts, 2, Condition.UP)
    assert not any(hosts.context.suspicions.all([CLUSTER]).values())


def test_probe_frozen_probers_change_nothing(hosts: Hosts) -> None:
    """No host has evidence: the round ends, and the next one asks again."""
    fail(hosts, 2)
    version = hosts.node(2).version
    for _ in range(2):
        silent_prober(hosts)
        wait_until(lambda: probe.run(hosts.context) == 1)
        assert len(hosts.context.suspicions.all([CLUSTER])[CLUSTER]) == 1
        wait_until(lambda: not overdue(hosts))
    assert hosts.node(2).version == version


def silent_prober(hosts: Hosts) -> None:
    """Have host 3 be present with a prober that answers nothing."""
    now_ms = hosts.context.paths.now_ms()
    hosts.context.redis.zadd(f"clusterer:{CLUSTER}:probers", {"3": now_ms})


def overdue(hosts: Hosts) -> bool:
    probe.conclude(hosts.context, [CLUSTER])
    return any(hosts.context.suspicions.all([CLUSTER]).values())


def test_probe_suspicion_left_open_is_concluded(hosts: Hosts) -> None:
    """As if the probers that were asked had been killed."""
    silent_prober(hosts)
    views = {CLUSTER: hosts.context.nodes.view(CLUSTER)}
    opened = hosts.context.suspicions.open(
        hosts.node(2), Kind.SUSPECT, asking=1, reason="test", views=views
    )
    assert opened is Opened.ASKED
    run_until(hosts.context, hosts, 2, Condition.PROBING)
    assert not overdue(hosts)


def test_probe_suspicion_of_other_version_is_removed(hosts: Hosts) -> None:
    silent_prober(hosts)
    views = {CLUSTER: hosts.context.nodes.view(CLUSTER)}
    hosts.context.suspicions.open(hosts.node(2), Kind.SUSPECT, asking=1, reason="test", views=views)
    fail(hosts, 2)
    assert not overdue(hosts)


@pytest.mark.parametrize("alone", [True, False])
def test_probe_reenable_probe_dead_node_stays_disabled(
    hosts: Hosts, pinging: Context, alone: bool
) -> None:
    hosts.receivers[2].stop()
    if not alone:
        hosts.start(1, 3)
    fail(hosts, 2, 3)
    version = hosts.node(2).version
    wait_until(lambda: probe.run(pinging) == 1)
    assert 1.0 - LATE_S < due_in_s(hosts, 2) <= 1.0
    wait_until(lambda: probe.run(pinging) == 1)
    wait_until(lambda: not overdue(hosts))
    assert (hosts.condition(2), hosts.node(2).version) == (Condition.DISABLED, version)


@pytest.mark.parametrize("alone", [True, False])
def test_probe_reenable_probe_node_answers_is_up(
    hosts: Hosts, pinging: Context, alone: bool
) -> None:
    if not alone:
        hosts.start(1, 3)
    fail(hosts, 2, 3)
    run_until(pinging, hosts, 2, Condition.UP)
    assert hosts.node(2).no_tries == 0


def test_probe_void_records_of_hosts_without_prober_go(hosts: Hosts) -> None:
    hosts.record(1, 2, tries=3)
    kept = hosts.record(1, 3)
    hosts.context.redis.hincrby(f"clusterer:{CLUSTER}:node:2", "epoch", 1)
    assert probe.clear_void_paths(hosts.context) == 1
    assert list(hosts.context.paths.records(1).values()) == [kept]
    assert probe.clear_void_paths(hosts.context) == 0


def test_probe_void_records_without_counter_go(hosts: Hosts) -> None:
    """Redis has lost the key with the counters of all senders; these senders are idle."""
    for sender in (1, 3, 7):
        hosts.record(sender, 2, tries=3)
    kept = hosts.record(1, 3)
    hosts.context.redis.hincrby(f"clusterer:{CLUSTER}:node:2", "epoch", 1)
    hosts.context.redis.delete(keys.PATHS)
    deleted = [0]

    def all_are_gone() -> bool:
        deleted[0] += probe.clear_void_paths(hosts.context)
        return deleted[0] == 3

    wait_until(all_are_gone)
    assert list(hosts.context.paths.records(1).values()) == [kept]
    assert not hosts.context.redis.exists(keys.paths(3), keys.paths(7))


def test_probe_round_of_silent_node_is_due_a_second_later(hosts: Hosts) -> None:
    """A round takes nearly a second: the next one counts from its beginning."""
    hosts.cut(1, 2)
    hosts.cut(3, 2)
    hosts.start(1, 3)
    fail(hosts, 2)
    began = hosts.context.nodes.now()
    wait_until(lambda: probe.run(hosts.context) == 1)
    wait_until(lambda: hosts.node(2).no_tries == 2)
    assert 0.9 < hosts.context.nodes.now() - began < 1.6 + LATE_S
    assert due_in_s(hosts, 2) < -0.3, "the probe interval of this test is 0.2 s"


def test_probe_just_begun_removes_no_prober(hosts: Hosts) -> None:
    """After an outage of Redis all heartbeats are old, and their probers not back yet."""
    hosts.context.redis.zadd(f"clusterer:{CLUSTER}:probers", {"3": 1})
    for _ in range(3):
        probe.run(hosts.context)
    assert list(hosts.context.probers.present(CLUSTER)) == [3]
    hosts.context.probes.lasted_s(hosts.context.nodes.now(), 10)
    hosts.context.probes._since -= probe.SETTLE_S
    for _ in range(2):
        probe.run(hosts.context)
    assert not hosts.context.probers.present(CLUSTER)
