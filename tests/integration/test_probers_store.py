"""Probers in Redis: one of each host, present until the sweep has seen them silent twice."""

from __future__ import annotations

import pytest
import redis

from clusterer.membership.suspicions import PRESENT_MS
from clusterer.settings import Settings
from clusterer.store import keys
from clusterer.store import probers as probers_module
from clusterer.store.badvalues import collected
from clusterer.store.probers import LEASE_MS, ProberHere, ProberStore
from tests.support.cluster import CLUSTER, load
from tests.support.paths import Paths

SET = keys.probers(*CLUSTER)
OLD_MS = 3100


@pytest.fixture
def world(settings: Settings, redis_client: redis.Redis) -> Paths:
    made = Paths(settings, redis_client)
    made.load()
    return made


@pytest.fixture
def sweeper(world: Paths) -> ProberStore:
    return world.probers


def silent(world: Paths, prober: int | str, for_ms: int = OLD_MS) -> None:
    """Have a prober whose last heartbeat is so old."""
    world.client.zadd(SET, {str(prober): world.paths.now_ms() - for_ms})


def test_heartbeat_of_second_process_is_refused(world: Paths) -> None:
    at = world.probers.heartbeat(1, "first", [CLUSTER])
    assert at is not None
    assert world.probers.heartbeat(1, "second", [CLUSTER]) is None
    assert world.probers.present(CLUSTER) == {1: at.now_ms}
    assert 0 < world.client.pttl(keys.prober(1)) <= LEASE_MS
    later = world.probers.heartbeat(1, "first", [CLUSTER])
    assert later is not None
    assert later.now_ms >= at.now_ms
    assert (later.counters, later.present) == ({}, {})


def test_heartbeat_reads_counters_and_present_probers(world: Paths) -> None:
    world.arrive(3)
    world.fail()
    other = CLUSTER._replace(cluster_id=7)
    found = world.probers.heartbeat(1, "first", [CLUSTER, other], look=True)
    assert found is not None
    assert found.counters == world.paths.counters()
    assert found.present == {CLUSTER: world.probers.present(CLUSTER), other: {}}
    assert found.present[CLUSTER].keys() == {1, 3}


def test_heartbeat_replaces_keys_of_wrong_type(world: Paths) -> None:
    world.client.mset(dict.fromkeys((SET, keys.PATHS), "text"))
    with collected() as problems:
        found = world.probers.heartbeat(1, "first", [CLUSTER], look=True)
    assert found is not None
    assert (found.counters, found.present[CLUSTER]) == ({}, {1: found.now_ms})
    assert {bad.key for bad in problems} == {SET, keys.PATHS}


def test_heartbeat_takes_lease_that_has_run_out(world: Paths) -> None:
    world.probers.heartbeat(1, "first", [CLUSTER])
    world.client.delete(keys.prober(1))
    assert world.probers.heartbeat(1, "second", [CLUSTER])
    assert world.probers.heartbeat(1, "first", [CLUSTER]) is None


@pytest.mark.parametrize("px", [None, 60_000])
def test_heartbeat_takes_lease_that_no_process_renews(px: int | None, world: Paths) -> None:
    world.client.set(keys.prober(1), "foreign", px=px)
    assert world.probers.heartbeat(1, "ours", [CLUSTER])
    assert 0 < world.client.pttl(keys.prober(1)) <= LEASE_MS


def test_heartbeat_in_cluster_without_nodes_is_not_noted(world: Paths, settings: Settings) -> None:
    load(settings, [])
    assert world.probers.heartbeat(1, "ours", [CLUSTER])
    assert not world.client.exists(SET)


def test_leave_removes_prober_and_its_keys(world: Paths) -> None:
    world.arrive(1, 3)
    world.client.xadd(keys.prober_ring(1), {"x": "y"})
    assert not world.probers.leave(1, "another process", [CLUSTER])
    assert world.probers.present(CLUSTER).keys() == {1, 3}
    assert world.probers.leave(1, "sip1", [CLUSTER])
    assert world.probers.present(CLUSTER).keys() == {3}
    assert not world.client.exists(keys.prober(1), keys.prober_ring(1))


def test_sweep_removes_prober_silent_in_two_looks(world: Paths, sweeper: ProberStore) -> None:
    world.arrive(1)
    silent(world, 3)
    world.client.xadd(keys.prober_ring(3), {"x": "y"})
    assert sweeper.sweep([CLUSTER]) == {}
    assert sweeper.sweep([CLUSTER]) == {CLUSTER: [3]}
    assert world.probers.present(CLUSTER).keys() == {1}
    assert not world.client.exists(keys.prober_ring(3))


def test_sweep_keeps_prober_that_speaks_between_looks(world: Paths, sweeper: ProberStore) -> None:
    silent(world, 3)
    assert sweeper.sweep([CLUSTER]) == {}
    silent(world, 3, OLD_MS - 50)
    assert sweeper.sweep([CLUSTER]) == {}, "another heartbeat, though an old one"
    world.arrive(3)
    assert sweeper.sweep([CLUSTER]) == {}
    assert world.probers.present(CLUSTER).keys() == {3}


def test_sweep_after_long_pause_removes_none(
    world: Paths, sweeper: ProberStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent(world, 3)
    monkeypatch.setattr(probers_module, "LOOKS_MS", -1)
    assert [sweeper.sweep([CLUSTER]) for _ in range(3)] == [{}] * 3


def test_sweep_unsettled_waits_for_probers_to_be_back(
    world: Paths, sweeper: ProberStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So do the looks of one of several maintenance workers, which take turns."""
    silent(world, 3)
    assert [sweeper.sweep([CLUSTER], settled=False) for _ in range(3)] == [{}] * 3
    monkeypatch.setattr(sweeper, "_looked_ms", sweeper._looked_ms - PRESENT_MS)
    assert sweeper.sweep([CLUSTER], settled=False) == {CLUSTER: [3]}


def test_sweep_of_other_process_begins_with_first_look(world: Paths, sweeper: ProberStore) -> None:
    silent(world, 3)
    sweeper.sweep([CLUSTER])
    assert ProberStore(world.settings, world.client).sweep([CLUSTER]) == {}


def test_sweep_removes_heartbeat_from_before_clock_was_set_back(
    world: Paths, sweeper: ProberStore
) -> None:
    silent(world, 3, -60_000)
    sweeper.sweep([CLUSTER])
    assert sweeper.sweep([CLUSTER]) == {CLUSTER: [3]}


def test_sweep_keeps_ring_of_prober_with_lease(world: Paths, sweeper: ProberStore) -> None:
    world.arrive(3)
    world.client.xadd(keys.prober_ring(3), {"x": "y"})
    silent(world, 3)
    sweeper.sweep([CLUSTER])
    sweeper.sweep([CLUSTER])
    assert world.client.exists(keys.prober_ring(3))


def test_sweep_removes_members_that_are_no_probers(world: Paths, sweeper: ProberStore) -> None:
    world.arrive(1)
    for member in ("oops", "-1", "07"):
        silent(world, member)
    with collected() as problems:
        assert sweeper.sweep([CLUSTER]) == {}
        sweeper.sweep([CLUSTER])
    assert {bad.key for bad in problems} == {SET}
    assert world.client.zrange(SET, 0, -1) == [b"1"]


@pytest.mark.parametrize("score", ["inf", "-inf", -1])
def test_present_names_heartbeat_that_is_no_time(
    score: str | int, world: Paths, sweeper: ProberStore
) -> None:
    world.arrive(1)
    world.client.zadd(SET, {"3": float(score)})
    with collected() as problems:
        assert world.probers.present(CLUSTER).keys() == {1}
        sweeper.sweep([CLUSTER])
        sweeper.sweep([CLUSTER])
    assert [(bad.key, bad.place) for bad in problems] == [(SET, "member 3")]
    assert world.client.zrange(SET, 0, -1) == [b"1"]


@pytest.mark.parametrize("name", [SET, keys.prober(1)])
def test_heartbeat_replaces_wrong_type(name: str, world: Paths) -> None:
    world.client.rpush(name, "oops")
    with collected() as problems:
        world.probers.present(CLUSTER)
        world.arrive(1)
    assert {bad.key for bad in problems} == {name}
    assert world.probers.present(CLUSTER).keys() == {1}


def test_leave_and_sweep_pass_over_wrong_type(world: Paths, sweeper: ProberStore) -> None:
    world.client.set(SET, "oops")
    with collected():
        assert sweeper.sweep([CLUSTER]) == {}
        assert sweeper.sweep([CLUSTER]) == {}
    assert world.probers.leave(1, "sip1", [CLUSTER])


def test_prober_here_asks_the_kernel_now_and_then(
    world: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure must not wait for one answer for each node of a large cluster."""
    asked: list[str] = []

    def is_local(host: str) -> bool:
        asked.append(host)
        return host in {"10.0.0.3", "10.0.0.4"}

    monkeypatch.setattr(probers_module, "is_local", is_local)
    here, views = ProberHere(), world.views()
    assert [here.find(views) for _ in range(3)] == [3, 3, 3]
    assert len(asked) == len(views[CLUSTER].nodes)
    assert here.find({}) is None
    monkeypatch.setattr(probers_module, "LOOK_S", 0.0)
    assert here.find(views) == 3
    assert len(asked) == 2 * len(views[CLUSTER].nodes)
