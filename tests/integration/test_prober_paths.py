"""Probers of several simulated hosts: they check paths, and only from addresses of their host."""

from __future__ import annotations

from dataclasses import replace
from time import monotonic

import pytest

from clusterer.membership import Condition, Event, State
from clusterer.prober import path_checks as path_checks_module
from clusterer.prober.checks import CONNECTS
from clusterer.prober.context import Context
from clusterer.prober.liveness import Liveness
from clusterer.prober.path_checks import PathChecks
from clusterer.prober.presence import Presence
from clusterer.settings import Settings
from clusterer.store import Cause
from tests.support.cluster import CLUSTER, load
from tests.support.probing import (
    Hosts,
    confirmed_by,
    context_of,
    host_of,
    keep_window_open,
    no_suspicion,
    suspect,
)
from tests.support.processes import wait_until

SETTINGS = {"ping_interval": 0.0, "probe_interval": 0.2}


def test_prober_path_check_answered_sets_path_up(hosts: Hosts) -> None:
    hosts.record(1, 2)
    hosts.start(1, 3)
    wait_until(lambda: (path := hosts.path(1, 2)) is None or path.state is State.UP)
    wait_until(lambda: hosts.path(1, 2) is None)
    assert hosts.context.paths.counters() == {}


def test_prober_path_broken_is_disabled_and_verdict_up(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_window_open(monkeypatch)
    hosts.cut(1, 2)
    hosts.record(1, 2)
    hosts.start(1, 3)
    wait_until(lambda: (path := hosts.path(1, 2)) and path.no_tries == 3)
    assert hosts.condition(2) is Condition.UP
    wait_until(lambda: confirmed_by(hosts, 2) == 3)
    last_ms = hosts.path(1, 2).last_ms  # type: ignore[union-attr]
    wait_until(lambda: (path := hosts.path(1, 2)) and path.last_ms > last_ms)
    assert hosts.condition(2) is Condition.UP
    hosts.heal()
    wait_until(lambda: hosts.path(1, 2) is None)


def test_prober_checks_once_for_all_senders_of_an_address(hosts: Hosts, settings: Settings) -> None:
    """A host with many senders has time for one check of each node, not of each path."""
    rows = [hosts.node(machine_id) for machine_id in (1, 2, 3)]
    others = [replace(rows[0], id=i, machine_id=i, url=f"{rows[0].url}{i}") for i in (11, 12, 13)]
    load(settings, [*rows, *others])
    hosts.cut(1, 2)
    before = {sender: hosts.record(sender, 2, tries=3) for sender in (1, 11, 12, 13)}
    hosts.start(1, 3)
    wait_until(lambda: all(hosts.path(each, 2) != path for each, path in before.items()))
    assert len(hosts.connects) <= 3 * CONNECTS, "one check of the paths, two about the verdict"


def test_prober_many_failed_checks_are_written_in_turns(
    hosts: Hosts, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each may open a suspicion: a prober with thousands must not miss its heartbeat."""
    monkeypatch.setattr(path_checks_module, "_AT_ONCE", 1)
    context = context_of(hosts, settings, {host_of(1)})
    context.probers.heartbeat(3, "other", [CLUSTER])
    before = {machine_id: hosts.record(1, machine_id) for machine_id in (2, 3)}
    for machine_id in before:
        hosts.receivers[machine_id].stop()
    due_at = monotonic() + 2 * settings.probe_interval
    wait_until(lambda: monotonic() > due_at)
    path_checks = PathChecks(context)
    path_checks.notice(context.paths.counters())
    check_node_2(hosts, context, path_checks)
    end_checks(context)
    written = []
    for _ in before:
        path_checks.notice(context.paths.counters())  # makes the next turn due
        path_checks.turn()
        written.append(sum(hosts.path(1, each) != path for each, path in before.items()))
    assert written == [1, 2]


def test_prober_path_check_refused_with_others_too_node_falls(hosts: Hosts) -> None:
    hosts.receivers[2].stop()
    hosts.record(1, 2)
    hosts.start(1, 3)
    wait_until(lambda: hosts.condition(2) is Condition.PROBING)


def test_prober_path_frozen_while_verdict_is_not_up(hosts: Hosts) -> None:
    before = hosts.record(1, 2)
    hosts.context.nodes.observe(hosts.node(2), Event.SEND_FAILED, Cause("test"))
    hosts.start(1, 3)
    wait_until(lambda: not hosts.connects)
    for _ in range(3):
        suspect(hosts, 3, asking=1)
        wait_until(lambda: no_suspicion(hosts))
    assert hosts.path(1, 2) == before


def test_prober_path_records_that_are_void_are_deleted(hosts: Hosts) -> None:
    hosts.record(1, 2, tries=3)
    hosts.record(1, 3, tries=3)
    hosts.context.redis.hincrby(f"clusterer:{CLUSTER}:node:2", "generation", 1)
    hosts.context.redis.hincrby(f"clusterer:{CLUSTER}:node:3", "epoch", 1)
    hosts.start(1)
    wait_until(lambda: not hosts.context.paths.counters())


def test_prober_path_record_of_later_epoch_is_kept(hosts: Hosts, settings: Settings) -> None:
    """A sender noticed the new epoch, and failed in it, before the prober has read the node."""
    context = context_of(hosts, settings, {host_of(1)})
    hosts.context.nodes.observe(hosts.node(2), Event.SEND_FAILED, Cause("test"))
    hosts.context.nodes.command(CLUSTER, 2, Event.SET_UP, Cause("test"))
    kept = hosts.record(1, 2)
    path_checks = PathChecks(context)
    path_checks.notice(context.paths.counters())
    path_checks.turn()
    assert hosts.path(1, 2) == kept


def test_prober_path_check_from_address_that_left_is_no_evidence(
    hosts: Hosts, settings: Settings
) -> None:
    """With the sysctl ip_nonlocal_bind, such an address can still be bound."""
    own = {host_of(1)}
    context = context_of(hosts, settings, own)
    hosts.cut(1, 2)
    kept = hosts.record(1, 2)
    path_checks = PathChecks(context)
    path_checks.notice(context.paths.counters())
    check_node_2(hosts, context, path_checks)
    own.clear()
    end_checks(context)
    path_checks.notice(context.paths.counters())
    path_checks.turn()
    assert hosts.path(1, 2) == kept


def test_prober_ping_from_address_that_left_is_no_evidence(
    hosts: Hosts, settings: Settings
) -> None:
    own = {host_of(1)}
    context = context_of(hosts, replace(settings, ping_interval=0.4, send_timeout=0.3), own)
    context.probers.heartbeat(1, "token", [CLUSTER])
    hosts.cut(1, 2)
    presence = Presence(context)
    presence.notice({CLUSTER: context.probers.present(CLUSTER)})
    liveness = Liveness(context, presence)
    check_node_2(hosts, context, liveness)
    own.clear()
    end_checks(context)
    assert no_suspicion(hosts)
    assert hosts.condition(2) is Condition.UP


def check_node_2(hosts: Hosts, context: Context, part: PathChecks | Liveness) -> None:
    """Let a part of a prober work until it checks node 2."""
    wanted = host_of(1), hosts.node(2).address

    def begun() -> bool:
        part.turn()
        context.checks.turn(0.0)
        return wanted in hosts.connects

    wait_until(begun)


def end_checks(context: Context) -> None:
    """Wait until all checks are concluded."""

    def ended() -> bool:
        context.checks.turn(0.01)
        return not len(context.checks)

    wait_until(ended)
