"""Keys of older formats, which the first new process renames: nothing is lost or sent twice."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest
import redis

from clusterer.errors import NewerFormat, OlderFormat, StateUnavailable
from clusterer.services import Context
from clusterer.services.status import node_list
from clusterer.settings import Settings
from clusterer.store import keys
from clusterer.store.format import FORMAT, RENAMED, migrate, require_format
from tests.support.cluster import assert_accounted, delivering, load, node, node_for, numbers, stat
from tests.support.older import QUEUE, now_ms, put_instance, put_offset, put_packets
from tests.support.processes import EVENTUALLY_S, wait_until
from tests.support.receiver import BinReceiver

SETTINGS = {"linger": 0.3, "send_timeout": 1.0}
FORMATS = pytest.mark.parametrize("found", [None, "1"], ids=["no format", "format 1"])


@pytest.fixture
def peer(settings: Settings) -> Iterator[BinReceiver]:
    """Node 3; node 1 is the sender."""
    with BinReceiver() as receiver:
        load(settings, [node(1), node_for(3, receiver)])
        yield receiver


@pytest.fixture
def client(redis_client: redis.Redis) -> redis.Redis:
    """Return a client of a Redis in which an older version has written."""
    return redis_client


def become_older(client: redis.Redis, found: str | None) -> None:
    """Give Redis the format of an older version."""
    client.delete(keys.FORMAT)
    if found is not None:
        client.set(keys.FORMAT, found)


def field_of(client: redis.Redis, machine_id: int) -> str:
    """Return the destination that a node is now."""
    generation = client.hget(keys.node(1, "bin", machine_id), "generation")
    assert generation is not None
    return f"1/{machine_id}/{int(generation)}"


def old_names(client: redis.Redis) -> list[str]:
    """Return the keys that have a name of format 1."""
    found = (key.decode() for key in client.scan_iter("clusterer:*"))
    return sorted(key for key in found if key.split(":")[1] in RENAMED)


@FORMATS
def test_migration_delivers_waiting_packets_once(
    settings: Settings, client: redis.Redis, peer: BinReceiver, found: str | None
) -> None:
    put_packets(client, 1300, entry_format=found)
    put_offset(client, field_of(client, 3), 300)
    become_older(client, found)
    with delivering(settings):
        wait_until(lambda: len(numbers(peer)) >= 1000, message="the waiting packets")
        wait_until(lambda: client.xlen(keys.log(1)) == 0, message="the log is trimmed")
    assert numbers(peer) == list(range(301, 1301))
    assert stat(client, 3, "sent") == 1300
    assert_accounted(settings)
    assert client.get(keys.FORMAT) == b"%d" % FORMAT
    assert old_names(client) == []


@FORMATS
def test_migration_keeps_values_types_and_lives(
    settings: Settings, client: redis.Redis, found: str | None
) -> None:
    put_packets(client, 20)
    put_offset(client, "1/3/7", 10)
    put_instance(client, 2, age_ms=60_000)
    client.hset("clusterer:fence:1", "1/3/7", "1 old 5")
    client.xadd("clusterer:tail:2", {"1": "x"})
    client.pexpire("clusterer:tail:2", 9_000)
    become_older(client, found)
    before = {name: client.dump(name) for name in old_names(client)}
    heartbeat = client.hget("clusterer:modules:2", "flushed_at")
    require_format(settings, client)
    after = {name: client.dump(name) for name in map(new_name, before)}
    assert after == {new_name(name): value for name, value in before.items()}
    assert len({name.split(":")[1] for name in before}) == len(RENAMED)
    assert 0 < client.pttl(keys.capture(2)) <= 9_000
    assert 500 < client.ttl(keys.enqueued(QUEUE)) <= 600
    assert client.hget("clusterer:modules:2", "heartbeat") == heartbeat
    assert not client.hexists("clusterer:modules:2", "flushed_at")


def new_name(old: str) -> str:
    """Return the name of today of a key of format 1."""
    _, kind, rest = old.split(":", 2)
    return f"clusterer:{RENAMED[kind]}:{rest}"


def test_migration_keeps_backlog(settings: Settings, client: redis.Redis) -> None:
    load(settings, [node(1), node(3)])
    put_packets(client, 50)
    put_offset(client, field_of(client, 3), 10)
    become_older(client, "1")
    require_format(settings, client)
    (item,) = [one for one in node_list.run(Context(settings)).traffic if one.machine_id == 3]
    assert (item.sent, item.backlog) == (10, 40)


@FORMATS
def test_migration_waits_while_an_old_lease_lives(
    settings: Settings, client: redis.Redis, found: str | None
) -> None:
    put_packets(client, 20)
    become_older(client, found)
    client.set("clusterer:lease:1", "sip1:7:abc", px=60_000)
    before = sorted(client.keys())
    told = "clusterer:lease:1 is held by the worker sip1:7:abc; stop all processes of the older"
    with pytest.raises(OlderFormat, match=told):
        require_format(settings, client)
    assert sorted(client.keys()) == before
    client.delete("clusterer:lease:1")
    require_format(settings, client)
    assert old_names(client) == []


@FORMATS
@pytest.mark.parametrize("age_ms", [0, 3_000])
def test_migration_waits_while_an_old_heartbeat_is_fresh(
    settings: Settings, client: redis.Redis, found: str | None, age_ms: int
) -> None:
    put_instance(client, 2, age_ms=age_ms)
    become_older(client, found)
    before = sorted(client.keys())
    with pytest.raises(OlderFormat, match=r"clusterer:modules:2 has a heartbeat of \d\.\d s ago"):
        require_format(settings, client)
    assert sorted(client.keys()) == before


@pytest.mark.parametrize("age_ms", [4_100, -60_000], ids=["old", "clock set back"])
def test_migration_ignores_an_old_heartbeat(
    settings: Settings, client: redis.Redis, age_ms: int
) -> None:
    put_instance(client, 2, age_ms=age_ms)
    become_older(client, "1")
    require_format(settings, client)
    assert client.zrange(keys.muted(2, "m", 1), 0, -1) == [b"3"]
    assert client.zrange(keys.last_seen(2, "m", 1), 0, -1) == [b"2"]


def test_migration_ignores_leases_of_today(settings: Settings, client: redis.Redis) -> None:
    """Redis lost its data while a process of today runs: the next process must not wait."""
    client.set(keys.lease(1), "sip1:7:abc", px=60_000)
    client.hset(keys.modules(2), mapping={"run": "new", "heartbeat": now_ms(client)})
    require_format(settings, client)
    assert client.get(keys.FORMAT) == b"%d" % FORMAT


def test_migration_twice_changes_nothing(settings: Settings, client: redis.Redis) -> None:
    put_packets(client, 20)
    put_offset(client, "1/3/7", 10)
    require_format(settings, client)
    once = {name: client.dump(name) for name in client.scan_iter()}
    require_format(settings, client)
    client.delete(keys.FORMAT)
    require_format(settings, client)
    assert {name: client.dump(name) for name in client.scan_iter()} == once


def test_migration_by_processes_at_once_happens_once(
    settings: Settings, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "clusterer")
    for sender in range(500):
        client.hset(f"clusterer:cursor:{sender}", "1/3/7", sender)
    start, failed = threading.Barrier(4), []

    def migrate() -> None:
        with redis.Redis.from_url(settings.redis_url) as own:
            start.wait(EVENTUALLY_S)
            try:
                require_format(settings, own)
            except (StateUnavailable, redis.RedisError) as error:
                failed.append(error)

    threads = [threading.Thread(target=migrate) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(EVENTUALLY_S)
    assert failed == []
    assert caplog.messages == ["Redis: keys renamed to format 2: 500 keys"]
    assert client.hget(keys.committed(499), "1/3/7") == b"499"


def test_migration_names_a_key_of_a_wrong_type(
    settings: Settings, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    client.rpush("clusterer:cursor:1", "oops")
    client.hset("clusterer:cursor:2", "1/3/7", "5")
    require_format(settings, client)
    assert client.lrange(keys.committed(1), 0, -1) == [b"oops"]
    assert client.hget(keys.committed(2), "1/3/7") == b"5"
    assert "key clusterer:committed:1 holds a list, expected a hash" in caplog.text


def test_migration_keeps_a_key_whose_new_name_exists(
    settings: Settings, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    client.hset("clusterer:cursor:1", "1/3/7", "5")
    client.hset("clusterer:committed:1", "1/3/7", "9")
    require_format(settings, client)
    assert client.hget("clusterer:cursor:1", "1/3/7") == b"5"
    assert client.hget("clusterer:committed:1", "1/3/7") == b"9"
    assert "key clusterer:cursor:1 not renamed: clusterer:committed:1 exists" in caplog.text


def test_migration_leaves_a_format_that_is_no_number(
    settings: Settings, client: redis.Redis
) -> None:
    client.hset("clusterer:cursor:1", "1/3/7", "5")
    client.set(keys.FORMAT, "text")
    require_format(settings, client)
    assert client.get(keys.FORMAT) == b"text"
    assert client.hget(keys.committed(1), "1/3/7") == b"5"


def test_migration_of_a_newer_format_is_refused(settings: Settings, client: redis.Redis) -> None:
    client.hset("clusterer:cursor:1", "1/3/7", "5")
    client.set(keys.FORMAT, FORMAT + 1)
    with pytest.raises(NewerFormat, match="clusterer:format is 3"):
        require_format(settings, client)
    assert old_names(client) == ["clusterer:cursor:1"]
    assert migrate(client) == b"3", "set by another process since the format was read"


def test_migration_leaves_keys_of_other_programs(settings: Settings, client: redis.Redis) -> None:
    others = ["cursor:1", "other:cursor:1", "clusterer:cursor", "clusterer:1:bin:due"]
    for name in others:
        client.set(name, "x")
    require_format(settings, client)
    assert sorted(client.keys()) == sorted([*(n.encode() for n in others), keys.FORMAT.encode()])
