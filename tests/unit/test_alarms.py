"""Alarms: which nodes need attention, in words. No server runs."""

from __future__ import annotations

from dataclasses import replace

from clusterer.membership import State
from clusterer.membership.paths import Path
from clusterer.services.live import Severity, Snapshot, alarms, rows
from clusterer.services.status.failures import Failure
from clusterer.services.status.paths import BrokenPath
from clusterer.store import ClusterKey
from tests.support.seeding import make_node
from tests.unit.test_live import NOW, flow, seen_by, snapshot

KEY = ClusterKey(1, "bin")
DISABLED = {"state": State.PROBING, "no_tries": 3, "last_attempt": int(NOW) - 21}


def words(found: Snapshot, failures: dict[int, Failure] | None = None) -> list[str]:
    places = {(KEY, machine_id): each for machine_id, each in (failures or {}).items()}
    return [each.words(NOW) for each in alarms(rows(None, found), places, NOW)]


def test_alarms_healthy_cluster_has_none() -> None:
    assert words(snapshot(flow(1, 2, 100), last_seen=(seen_by(1, {2: 0.5}),))) == []


def test_alarms_disabled_node_says_how_long_and_why() -> None:
    found = snapshot(nodes=(make_node(1), make_node(2, **DISABLED)))
    why = {2: Failure(NOW - 21, "Connection refused", "probe")}
    assert words(found, why) == [
        "node 2 is disabled for 21 s: Connection refused; back in 9 s",
    ]
    assert words(found) == ["node 2 is disabled; back in 9 s"], "Redis has its event no longer"


def test_alarms_probing_and_down_nodes_are_ordered() -> None:
    nodes = (
        make_node(1, state=State.DOWN),
        make_node(2, state=State.PROBING, no_tries=1),
        make_node(3),
    )
    found = alarms(rows(None, snapshot(nodes=nodes)), {}, NOW)
    assert [(each.severity, each.machine_id) for each in found] == [
        (Severity.ERROR, 2),
        (Severity.NOTE, 1),
    ]
    down = {1: Failure(NOW - 60, "new disk", "operator root@sip1")}
    assert words(snapshot(nodes=nodes), down)[1] == (
        "node 1 is down, set by operator root@sip1 for 60 s: new disk"
    )


def test_alarms_unreached_node_names_some_senders() -> None:
    nodes = tuple(make_node(i, epoch=1) for i in range(1, 10))
    path = Path(State.PROBING, 1, 1, int(NOW * 1000), 0, "timed out")
    broken = tuple(BrokenPath(i, nodes[8], path) for i in range(1, 8))
    found = replace(snapshot(nodes=nodes), paths=broken)
    assert words(found) == ["senders 1, 2, 3, 4, 5 and 2 more do not reach node 9: timed out"]
    found = replace(found, paths=broken[:1])
    assert words(found) == ["sender 1 does not reach node 9: timed out"]


def test_alarms_node_behind_and_muted() -> None:
    behind = flow(1, 2, backlog=512, oldest_s=12.0)
    muted = seen_by(1, {3: 30.0}, muted_s={3: 8.0})
    other = seen_by(2, {3: 30.0}, muted_s={3: 9.0})
    assert words(snapshot(behind, last_seen=(muted, other))) == [
        "node 2 is behind: 512 packets wait, the oldest for 12 s",
        "node 3 is muted for ratelimit by instances 1, 2; accepted again in 9 s",
    ]


def test_alarms_dead_node_has_one_alarm() -> None:
    nodes = make_node(1), make_node(2, **DISABLED)
    muted = seen_by(1, {2: 30.0}, muted_s={2: 8.0})
    behind = flow(1, 2, backlog=5, oldest_s=30.0)
    assert len(words(snapshot(behind, nodes=nodes, last_seen=(muted,)))) == 1
