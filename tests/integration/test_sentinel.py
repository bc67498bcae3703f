"""Clients of a Redis that real sentinels watch: they follow the master, and say what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import redis

from clusterer.endpoint import error_at, open_client, remedy
from clusterer.settings import Settings
from tests.support.forked import in_child
from tests.support.ports import free_port
from tests.support.processes import wait_until
from tests.support.redis_server import RedisServer
from tests.support.sentinel import PATIENT_S, SERVICE, SentinelRedis

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def watched() -> Iterator[SentinelRedis]:
    with SentinelRedis() as found:
        yield found


def complaint(url: str) -> str:
    """Return what is said, and advised, about the Redis at ``url``; empty if it takes a write."""
    settings = Settings(redis_url=url)
    try:
        with open_client(settings) as client:
            client.set("clusterer:x", 1)
    except redis.RedisError as error:
        return f"{error_at(settings, error)}; {remedy(error)}"
    return ""


def address_of(client: redis.Redis) -> str:
    """Return the address of the server that takes a write of ``client``; empty if none does."""
    try:
        client.set("clusterer:x", 1)
        return str(client.config_get("bind")["bind"])
    except redis.RedisError:
        return ""


def follows(client: redis.Redis, watched: SentinelRedis) -> bool:
    """Whether the client writes to the master. On a busy host there may be more failovers."""
    return address_of(client) == watched.master().address


@pytest.mark.parametrize("act", [SentinelRedis.kill_master, SentinelRedis.fail_over])
def test_client_follows_the_master(
    watched: SentinelRedis, act: Callable[[SentinelRedis], RedisServer]
) -> None:
    with open_client(Settings(redis_url=watched.url)) as client:
        wait_until(lambda: follows(client, watched), PATIENT_S, "the master is written")
        old = act(watched)
        watched.wait_for_promotion(old)
        wait_until(lambda: follows(client, watched), PATIENT_S, "the new master is written")
    watched.make_whole()


def test_client_leaves_a_master_that_still_takes_writes(watched: SentinelRedis) -> None:
    with open_client(Settings(redis_url=watched.url)) as client, watched.partition() as old:
        wait_until(lambda: address_of(client), PATIENT_S, "a master is written")
        watched.wait_for_promotion(old)
        wait_until(lambda: follows(client, watched), PATIENT_S, "the new master is written")
        with old.client() as direct:
            assert direct.set("clusterer:x", 2), "the old master still takes writes"
    watched.make_whole()


def test_forked_child_follows_the_master(watched: SentinelRedis) -> None:
    with open_client(Settings(redis_url=watched.url)) as client:
        wait_until(lambda: address_of(client), PATIENT_S, "the master is written")
        assert in_child(lambda: wait_until(lambda: follows(client, watched))) == 0
        wait_until(lambda: address_of(client), PATIENT_S, "the parent's connection works")


def test_sentinel_that_is_away_is_passed_over(watched: SentinelRedis) -> None:
    hosts = watched.url.removeprefix("sentinel://")
    url = f"sentinel://127.0.0.1:{free_port()},{hosts}/0"
    wait_until(lambda: not complaint(url), PATIENT_S, "the master is written")


def test_sentinel_advice_names_what_to_do(watched: SentinelRedis) -> None:
    hosts = watched.url.removeprefix("sentinel://").removesuffix(f"/{SERVICE}")
    closed = f"127.0.0.1:{free_port()}"
    no_sentinel = f"{watched.master().address}:{watched.port}"
    assert complaint(f"sentinel://{hosts}/other") == (
        f"Redis at sentinel://{hosts}/other: Sentinel knows no service other, it knows {SERVICE}; "
        "correct the service in redis_url: the name after `sentinel monitor` in sentinel.conf"
    )
    assert complaint(f"sentinel://{closed}/{SERVICE}") == (
        f"Redis at sentinel://{closed}/{SERVICE}: No sentinel answers "
        f"({closed}: Connection refused); "
        "start the sentinels, or correct redis_url (a port for TLS needs sentinels://)"
    )
    assert complaint(f"sentinel://{no_sentinel}/{SERVICE}") == (
        f"Redis at sentinel://{no_sentinel}/{SERVICE}: The server {no_sentinel} is no sentinel; "
        "write the port of a sentinel in redis_url (by default 26379)"
    )


def test_sentinel_password_is_asked_for(watched: SentinelRedis) -> None:
    sentinel = watched.sentinels[0]
    place = f"{sentinel.address}:{sentinel.port}/{SERVICE}"
    with sentinel.client() as admin:
        admin.execute_command("ACL", "SETUSER", "default", "resetpass", ">s3cret")
    try:
        for query in ("", "?sentinel_password=wr0ng"):
            text = complaint(f"sentinel://{place}{query}")
            assert f"The sentinel {sentinel.address}:{sentinel.port} refuses: " in text
            assert "correct sentinel_username and sentinel_password in redis_url" in text
            assert "wr0ng" not in text
        url = f"sentinel://{place}?sentinel_password=s3cret"
        wait_until(lambda: not complaint(url), PATIENT_S, "the master is written")
    finally:
        with sentinel.client(password="s3cret") as admin:
            admin.execute_command("ACL", "SETUSER", "default", "nopass")
