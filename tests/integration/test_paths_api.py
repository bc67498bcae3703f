"""The seven functions and MI where senders do not see the same: views of the own instance."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest
import redis

from clusterer import Clusterer, Settings
from clusterer.membership import Condition, State
from clusterer.membership.paths import Path
from clusterer.mi.commands import Listed, ListNodes
from clusterer.services import Context
from clusterer.services.admin.mi_commands import MiCommands
from clusterer.store import ClusterKey, keys
from clusterer.store.audit import PathEvents
from clusterer.store.directory import REFRESH_S
from clusterer.store.paths import PathStore
from clusterer.store.suspicions import SuspicionStore
from tests.support.broken_paths import (
    break_path,
    heal_path,
    node_of,
    put_prober,
    put_record,
    record,
)
from tests.support.cluster import CLUSTER, load, node
from tests.support.processes import wait_until

NODES = [node(i, host=f"192.0.2.{i}", duration=5) for i in (1, 2, 3)]


@pytest.fixture
def instance(settings: Settings) -> Iterator[Clusterer]:
    load(settings, NODES)
    with Clusterer(settings=settings) as made:
        yield made


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(settings, server_id=1)


def up(instance: Clusterer) -> list[int]:
    return [found.machine_id for found in instance.get_nodes(1, "bin")]


def test_get_nodes_follows_own_path_only(instance: Clusterer, settings: Settings) -> None:
    with Clusterer(3, settings=settings) as other:
        assert (up(instance), up(other)) == ([2, 3], [1, 2])
        break_path(settings, 1, 2)
        assert node_of(settings, 2).condition is Condition.UP
        wait_until(lambda: up(instance) == [3], 3 * REFRESH_S, "the instance sees its path")
        packet = instance.packet("test", 1).build()
        assert instance.send_to(1, "bin", packet) == 1
        assert up(other) == [1, 2]
        reachable = [found.machine_id for found in instance.reachable_nodes(1, "bin")]
        assert reachable == [2, 3]
        assert instance.reachable_nodes(9, "bin") == []
        heal_path(settings, 1, 2)
        wait_until(lambda: up(instance) == [2, 3], 3 * REFRESH_S, "the path is up again")


def test_get_nodes_path_outlasts_validity_is_up(
    instance: Clusterer, settings: Settings, redis_client: redis.Redis
) -> None:
    """No process renews the record of a sender whose host has no worker."""
    now_ms = PathStore(settings).now_ms()
    seen = node_of(settings, 2)
    put_record(redis_client, 1, seen, Path(State.PROBING, 1, now_ms, now_ms + 1500, seen.epoch, ""))
    assert up(instance) == [3]
    before = time.monotonic()
    wait_until(lambda: up(instance) == [2, 3], message="the record is void")
    assert time.monotonic() - before > 0.5


def test_set_state_2_with_other_hosts_is_observation(
    instance: Clusterer, settings: Settings
) -> None:
    for machine_id in (1, 3):
        put_prober(settings, machine_id)
    instance.set_state(1, 2, 2, "bin")
    assert up(instance) == [3], "visible at once"
    assert node_of(settings, 2).condition is Condition.UP
    found = record(settings, 1, 2)
    assert found is not None
    assert (found.state, found.no_tries, found.reason) == (State.PROBING, 1, "set_state")
    suspicion = SuspicionStore(settings).all([CLUSTER])[CLUSTER][2]
    assert suspicion.asked >= {3}
    assert suspicion.reason == "set_state of instance 1"
    store = PathEvents(settings)
    (event,) = store.newest_first(store.ends(store.clusters()))
    assert (event.sender, event.machine_id, event.before, event.after) == (1, 2, "up", "probing")
    assert (event.event, event.by) == ("suspected", "set_state of instance 1")


def test_set_state_2_alone_counts_each_attempt(instance: Clusterer, settings: Settings) -> None:
    """As before there were paths: only the node's own host has a prober."""
    put_prober(settings, 2)
    for condition in (Condition.PROBING, Condition.PROBING, Condition.DISABLED):
        instance.set_state(1, 2, 2, "bin")
        assert node_of(settings, 2).condition is condition
    assert up(instance) == [3]
    instance.set_state(1, 2, 2, "bin")
    assert node_of(settings, 2).no_tries == 3


def test_set_state_2_of_falling_node_asks_no_more(instance: Clusterer, settings: Settings) -> None:
    """The rounds of the verdict count, not each of the programs."""
    instance.set_state(1, 2, 2, "bin")
    for machine_id in (1, 3):
        put_prober(settings, machine_id)
    instance.set_state(1, 2, 2, "bin")
    assert node_of(settings, 2).no_tries == 1


def test_set_state_2_of_node_that_is_down_is_nothing(
    instance: Clusterer, settings: Settings
) -> None:
    instance.set_state(1, 2, 0, "bin")
    instance.set_state(1, 2, 2, "bin")
    assert node_of(settings, 2).condition is Condition.DOWN
    assert record(settings, 1, 2) is None


def test_set_state_2_of_other_protocol_changes_node(settings: Settings) -> None:
    """No packet is sent over it: there are no paths."""
    key = ClusterKey(1, "udp")
    load(settings, [node(i, host=f"192.0.2.{i}", protocol="udp") for i in (1, 2)], key)
    with Clusterer(settings=settings) as instance:
        instance.set_state(1, 2, 2, "udp")
        assert node_of(settings, 2, key).condition is Condition.PROBING
        assert instance.get_nodes(1, "udp") == []


def test_set_state_1_on_up_node_clears_paths(instance: Clusterer, settings: Settings) -> None:
    break_path(settings, 1, 2)
    break_path(settings, 3, 2)
    wait_until(lambda: up(instance) == [3], 3 * REFRESH_S, "the instance sees its path")
    instance.set_state(1, 2, 1, "bin")
    assert up(instance) == [2, 3]


def test_mi_list_shows_view_of_own_instance(settings: Settings) -> None:
    load(settings, NODES)
    break_path(settings, 1, 2, times=3)
    break_path(settings, 2, 3)
    with closing(Context(settings)) as context:
        listed = MiCommands(context, "test").run(ListNodes(), "test")
    assert isinstance(listed, Listed)
    states = {n.node_id: (n.state, n.no_tries, n.link_state) for n in listed.clusters[0].nodes}
    assert states == {2: (2, 3, "Down"), 3: (1, 0, "Up")}


def test_get_nodes_bad_record_is_left_out(
    instance: Clusterer, settings: Settings, redis_client: redis.Redis
) -> None:
    break_path(settings, 1, 3)
    field = f"1/2/{node_of(settings, 2).generation}"
    redis_client.hset(keys.paths(1), field, "7 nonsense")
    redis_client.hincrby(keys.PATHS, "1", 1)
    wait_until(lambda: up(instance) == [2], 3 * REFRESH_S, "the other record counts")


def test_path_record_changes_no_version_and_no_row(
    instance: Clusterer, settings: Settings, redis_client: redis.Redis
) -> None:
    """The table gets the verdict; local copies of the nodes are not read again."""
    before = redis_client.get(keys.version(1, "bin"))
    put_prober(settings, 3)
    instance.set_state(1, 2, 2, "bin")
    break_path(settings, 1, 2, times=2)
    heal_path(settings, 1, 2)
    assert redis_client.get(keys.version(1, "bin")) == before
    assert redis_client.exists(keys.dirty(1, "bin")) == 0
