"""The local copy of all clusters: one command a look, for any account."""

from __future__ import annotations

from collections.abc import Callable

import redis

from clusterer.settings import Settings
from clusterer.store import ClusterKey, Directory, NodeStore
from tests.support.redis_server import RedisServer
from tests.support.seeding import make_node, put_node


def test_directory_clusters_and_versions_are_one_command(
    redis_url: str, redis_client: redis.Redis
) -> None:
    put_node(redis_client, make_node(1, cluster_id=12))
    for machine_id in (1, 2):
        put_node(redis_client, make_node(machine_id, cluster_id=3))
    put_node(redis_client, make_node(1, cluster_id=3, protocol="sip"))
    store = NodeStore(Settings(redis_url=redis_url))
    wanted = {ClusterKey(3, "bin"): 2, ClusterKey(3, "sip"): 1, ClusterKey(12, "bin"): 1}
    before = redis_client.info("stats")["total_commands_processed"]
    assert store.versions() == wanted
    assert redis_client.info("stats")["total_commands_processed"] - before <= 2, "INFO is one"
    assert list(store.versions()) == sorted(wanted)


def test_directory_without_clusters_has_no_versions(redis_url: str) -> None:
    assert NodeStore(Settings(redis_url=redis_url)).versions() == {}


def test_directory_account_limited_to_our_keys_is_enough(
    own_redis_server: Callable[[], RedisServer],
) -> None:
    server = own_redis_server()
    with server.client() as client:
        put_node(client, make_node(1))
        client.execute_command("ACL", "SETUSER", "limited", "on", ">pw", "~clusterer:*", "+@all")
    url = server.url.replace("redis://", "redis://limited:pw@")
    store = NodeStore(Settings(redis_url=url))
    assert store.versions() == {ClusterKey(1, "bin"): 1}
    directory = Directory(store)
    directory.refresh()
    assert list(directory.snapshot) == [ClusterKey(1, "bin")]
