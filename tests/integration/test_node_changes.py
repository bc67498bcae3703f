"""A local copy reads the nodes that changed, and all of them where Redis does not tell which."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis

from clusterer.services import Context
from clusterer.services.admin import set_status
from clusterer.settings import Settings
from clusterer.store import ClusterKey, Directory, keys
from clusterer.store.badvalues import collected
from clusterer.store.node_change import Cause
from tests.support.cluster import CLUSTER, load, node

NODES = 200
EVENTS = keys.events(1)

Spoil = Callable[[redis.Redis], object]


@pytest.fixture(autouse=True)
def _nodes(settings: Settings) -> None:
    """Provision a cluster of 200 nodes."""
    load(settings, [node(machine_id) for machine_id in range(1, NODES + 1)])


@pytest.fixture
def directory(context: Context) -> Directory:
    """A local copy of the cluster."""
    directory = Directory(context.nodes)
    directory.refresh()
    return directory


def refreshed(directory: Directory, client: redis.Redis) -> int:
    """Refresh the copy and return how many commands that cost; fail if it is not like Redis."""
    client.config_resetstat()
    directory.refresh()
    found = client.info("commandstats")
    others = ("cmdstat_config|resetstat", "cmdstat_info")
    return sum(int(each["calls"]) for name, each in found.items() if name not in others)


def assert_current(directory: Directory, context: Context) -> None:
    assert directory.snapshot == context.nodes.views()


def test_directory_after_one_change_reads_one_node(
    context: Context, directory: Directory, redis_client: redis.Redis
) -> None:
    for status in (0, 1):
        set_status.run(context, 1, 5, status, "bin", by="test")
        assert refreshed(directory, redis_client) <= 5
        assert_current(directory, context)
    assert refreshed(directory, redis_client) == 1, "nothing changed"


def test_directory_reads_a_node_that_changed_often_once(
    context: Context, directory: Directory, redis_client: redis.Redis
) -> None:
    for status in (0, 1, 0):
        set_status.run(context, 1, 5, status, "bin", by="test")
        set_status.run(context, 1, 6, status, "bin", by="test")
    assert refreshed(directory, redis_client) <= 6
    assert_current(directory, context)


def test_directory_after_a_reload_reads_what_it_changed(
    context: Context, directory: Directory, settings: Settings, redis_client: redis.Redis
) -> None:
    wanted = [node(machine_id) for machine_id in range(2, NODES + 2)]
    load(settings, [*wanted[:5], node(7, port=77), *wanted[6:]])
    assert refreshed(directory, redis_client) <= 7
    assert_current(directory, context)
    nodes = directory.snapshot[CLUSTER].nodes
    assert (list(nodes), nodes[7].port) == ([*range(2, NODES + 2)], 77)


def _begin_again(client: redis.Redis) -> None:
    """Lose the counter, and count up to where the copy is."""
    client.set(keys.version(*CLUSTER), NODES - 1)


SPOILS: dict[str, Spoil] = {
    "deleted": lambda client: client.delete(EVENTS),
    "trimmed": lambda client: client.xtrim(EVENTS, 0, approximate=False),
    "a string": lambda client: client.set(EVENTS, "x"),
    "a set": lambda client: (client.delete(EVENTS), client.sadd(EVENTS, "x")),
    "a gap": lambda client: client.incr(keys.version(*CLUSTER)),
    "a foreign entry": lambda client: client.xadd(
        EVENTS, {"protocol": "bin", "version": "202", "machine_id": "x"}
    ),
    "an empty counter": lambda client: client.delete(keys.version(*CLUSTER)),
    "a counter that went back": _begin_again,
    "a counter that is no number": lambda client: client.set(keys.version(*CLUSTER), "x"),
}


@pytest.mark.parametrize("spoil", SPOILS.values(), ids=SPOILS)
def test_directory_reads_all_where_changes_are_missing(
    context: Context, directory: Directory, redis_client: redis.Redis, spoil: Spoil
) -> None:
    set_status.run(context, 1, 4, 0, "bin", by="test")
    spoil(redis_client)
    set_status.run(context, 1, 5, 0, "bin", by="test")
    set_status.run(context, 1, 6, 0, "bin", by="test")
    directory.refresh()
    assert directory.snapshot[CLUSTER].nodes == context.nodes.view(CLUSTER).nodes


def test_directory_of_another_data_set_reads_all(
    context: Context, directory: Directory, settings: Settings, redis_client: redis.Redis
) -> None:
    redis_client.flushall()
    load(settings, [node(machine_id, port=9) for machine_id in range(1, NODES + 1)])
    set_status.run(context, 1, 5, 0, "bin", by="test")
    directory.refresh()
    assert_current(directory, context)
    assert {each.port for each in directory.snapshot[CLUSTER].nodes.values()} == {9}


def test_directory_keeps_a_changed_node_that_is_damaged(
    context: Context, directory: Directory, redis_client: redis.Redis
) -> None:
    before = directory.snapshot[CLUSTER].nodes[5]
    set_status.run(context, 1, 5, 0, "bin", by="test")
    redis_client.hset(keys.node(*CLUSTER, 5), "port", "x")
    set_status.run(context, 1, 6, 0, "bin", by="test")
    with collected() as problems:
        directory.refresh()
    assert {(bad.key, bad.place) for bad in problems} >= {(keys.node(*CLUSTER, 5), "field port")}
    nodes = directory.snapshot[CLUSTER].nodes
    assert (nodes[5].port, nodes[5].state) == (before.port, 0)
    assert nodes[6].state == 0


def test_change_is_committed_where_changes_hold_a_wrong_type(
    context: Context, redis_client: redis.Redis
) -> None:
    redis_client.set(EVENTS, "x")
    with collected() as problems:
        assert set_status.run(context, 1, 5, 0, "bin", by="test").state == 0
    assert {bad.key for bad in problems} == {EVENTS}
    assert redis_client.get(EVENTS) == b"x"


def test_directory_after_an_event_without_change_reads_on(
    context: Context, directory: Directory, redis_client: redis.Redis
) -> None:
    node_9 = directory.snapshot[CLUSTER].nodes[9]
    context.nodes.note(node_9, "reported in table", Cause("test"))
    set_status.run(context, 1, 5, 0, "bin", by="test")
    assert refreshed(directory, redis_client) <= 6
    assert_current(directory, context)


def test_directory_after_events_of_another_protocol_reads_on(
    context: Context, directory: Directory, settings: Settings, redis_client: redis.Redis
) -> None:
    load(settings, [node(3, protocol="sip")], ClusterKey(1, "sip"))
    directory.refresh()
    set_status.run(context, 1, 3, 0, "sip", by="test")
    set_status.run(context, 1, 5, 0, "bin", by="test")
    assert refreshed(directory, redis_client) <= 8
    assert_current(directory, context)
