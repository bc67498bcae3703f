"""A Redis that moves: its name points to the new primary, the old one lives on as a replica."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from time import monotonic

import pytest
import redis

import workers
from clusterer import Clusterer, Settings
from clusterer.endpoint import open_client
from clusterer.endpoint.connection import CHECK_S
from clusterer.errors import StateUnavailable
from clusterer.settings import as_environment
from clusterer.store import NodeStore
from clusterer.store.channel import Channel, evalsha
from clusterer.store.client import connect
from clusterer.store.scripts import Script
from tests.support.cluster import load, node, node_for, numbers
from tests.support.failover import NEW, OLD, MovingRedis, connected_to
from tests.support.ports import free_port
from tests.support.processes import LATE_S, ChildProcess, spawn, wait_until
from tests.support.receiver import BinReceiver

RECOVERED_S = 5.0 + LATE_S
FIFO = "fifo"
ASK = ":clusterer_list:\n\n"
RQ_LINE = (workers.__doc__ or "").split("::")[1].replace("\\\n", " ").split()


@pytest.fixture
def moving(monkeypatch: pytest.MonkeyPatch) -> Iterator[MovingRedis]:
    with MovingRedis() as servers:
        servers.resolve_here(monkeypatch)
        yield servers


def commands(directory: Path, url: str) -> dict[str, list[str]]:
    """Return the words of each process that runs until it is stopped."""
    rq = list(RQ_LINE)
    rq[rq.index("--url") + 1] = url
    return {
        "delivery": ["-m", "workers", "delivery"],
        "maintenance": ["-m", "workers", "maintenance"],
        "database": ["-m", "workers", "database"],
        "scheduler": ["-m", "scheduler"],
        "node": ["-m", "clusterer", "node"],
        "mi": ["-m", "clusterer", "mi", "--fifo", str(directory / FIFO)],
        "watch": ["-m", "clusterer", "watch", "2"],
        "rq": ["-m", "rq.cli", *rq[1:]],
    }


@pytest.mark.slow
def test_redis_failover_is_followed_by_every_process(moving: MovingRedis, tmp_path: Path) -> None:
    settings = Settings(redis_url=moving.url, server_id=1, data_dir=str(tmp_path), linger=0.2)
    environment = as_environment(settings) | moving.environment
    with ExitStack() as stack:
        peer = stack.enter_context(BinReceiver())
        load(settings, [node(1, free_port()), node_for(2, peer)])
        running = {
            name: stack.enter_context(spawn(words, environment))
            for name, words in commands(tmp_path, moving.url).items()
        }
        sender = stack.enter_context(Clusterer(1, settings=settings))
        send(sender, 0)
        wait_until(lambda: numbers(peer) == [0], message="a packet arrives before")
        for name, process in running.items():
            wait_for_peers(process, moving, OLD, 15, f"{name} is connected")
        moving.move()
        moved_at = monotonic()
        wait_until(lambda: sent(sender, 1), RECOVERED_S, "the sender recovers")
        for name, process in running.items():
            left_s = max(moved_at + RECOVERED_S - monotonic(), 1)
            wait_for_peers(process, moving, NEW, left_s, f"{name} has moved")
        wait_until(lambda: numbers(peer) == [0, 1], message="a packet arrives after")
        for name, process in running.items():
            assert connected_to(process.pid, moving.old.port) == {NEW}, name
            assert "Traceback" not in process.output()
            assert "bad command" not in process.output()


def wait_for_peers(
    process: ChildProcess, moving: MovingRedis, address: str, timeout_s: float, what: str
) -> None:
    fifo = Path(str(list(process.popen.args)[-1]))  # type: ignore[arg-type]

    def has_moved() -> bool:
        assert process.returncode is None, process.output()
        if fifo.is_fifo():  # `mi` asks Redis only when it is asked
            fifo.write_text(ASK, encoding="ascii")
        return connected_to(process.pid, moving.old.port) == {address}

    wait_until(has_moved, timeout_s, what)


def send(sender: Clusterer, number: int) -> int:
    return sender.send_to(1, "bin", sender.packet("test", 1).push_int(number).build())


def sent(sender: Clusterer, number: int) -> bool:
    with suppress(StateUnavailable):
        return send(sender, number) > 0
    return False


def test_reader_of_a_demoted_server_reads_the_new_one(moving: MovingRedis) -> None:
    store = NodeStore(Settings(redis_url=moving.url))
    load(Settings(redis_url=moving.url), [node(1)])
    assert store.versions()
    with moving.old.client() as old:
        moving.promote()
        moving.point([NEW])
        old.replicaof("127.0.0.1", "1")  # its primary is away: it serves what it has, for ever
        with moving.new.client() as new:
            new.flushall()
        wait_until(lambda: store.versions() == {}, RECOVERED_S, "what the new primary has")


def test_idle_channel_loses_no_call_to_a_failover(moving: MovingRedis) -> None:
    channel = Channel(Settings(redis_url=moving.url))
    assert write(channel) == [b"OK"]
    moving.move()
    channel._connection._check_at = channel._used_at = 0.0  # as after some seconds
    assert write(channel) == [b"OK"]
    channel.close()


def test_channel_refused_by_a_replica_works_next_time(moving: MovingRedis) -> None:
    channel = Channel(Settings(redis_url=moving.url))
    assert write(channel) == [b"OK"]
    moving.move()
    with pytest.raises(redis.ResponseError, match="READONLY"):
        write(channel)
    assert write(channel) == [b"OK"]
    channel.close()


def write(channel: Channel) -> list[object]:
    script = Script("return redis.call('SET', KEYS[1], 1)")
    return channel.run(script, [evalsha(script, "1", "clusterer:x")])


def test_client_of_a_frozen_server_fails_fast_and_follows(moving: MovingRedis) -> None:
    with open_client(Settings(redis_url=moving.url)) as client:
        client.ping()
        moving.promote()
        moving.old.pause()
        moving.point([NEW])
        began = monotonic()
        with pytest.raises(redis.TimeoutError):
            client.set("clusterer:x", 1)
        assert monotonic() - began < 2 + LATE_S
        client.set("clusterer:x", 1)
        moving.old.resume()


@pytest.mark.parametrize("order", [[OLD, NEW], [NEW, OLD]])
def test_name_of_two_addresses_finds_the_primary(moving: MovingRedis, order: list[str]) -> None:
    moving.promote()
    moving.demote()
    moving.point(order)
    with open_client(Settings(redis_url=moving.url)) as client:
        client.set("clusterer:x", 1)
        client.connection_pool.disconnect()
        client.set("clusterer:x", 2)


def test_name_of_two_addresses_passes_a_frozen_one(moving: MovingRedis) -> None:
    moving.promote()
    moving.old.pause()
    moving.point([OLD, NEW])
    with open_client(Settings(redis_url=moving.url)) as client:
        with pytest.raises(redis.TimeoutError):
            client.set("clusterer:x", 1)
        client.set("clusterer:x", 2)
    moving.old.resume()


def test_name_of_two_addresses_follows_a_failover(moving: MovingRedis) -> None:
    moving.point([OLD, NEW])
    with open_client(Settings(redis_url=moving.url)) as client:
        client.set("clusterer:x", 1)
        moving.promote()
        moving.demote()
        with pytest.raises(redis.ReadOnlyError):
            client.set("clusterer:x", 2)
        client.set("clusterer:x", 3)


def test_replica_without_a_primary_is_read_all_the_same(moving: MovingRedis) -> None:
    moving.point([NEW])
    with open_client(Settings(redis_url=moving.url)) as client:
        assert client.info("replication")["role"] == "slave"
        for _ in range(2):
            with pytest.raises(redis.ReadOnlyError):
                client.set("clusterer:x", 1)
        moving.promote()
        client.set("clusterer:x", 1)


def test_idle_connections_of_other_clients_are_closed(moving: MovingRedis) -> None:
    settings = Settings(redis_url=moving.url)
    with open_client(settings) as client, connect(settings) as other, moving.old.client() as old:
        client.ping()
        other.ping()
        moving.move()
        with pytest.raises(redis.ReadOnlyError):
            client.set("clusterer:x", 1)
        wait_until(lambda: len(ours(old)) == 0, message="no connection to the old server")


def ours(client: redis.Redis) -> list[object]:
    """Return the connections of clients, this one's and replication's excepted."""
    mine = str(client.client_id())
    listed = client.client_list()
    return [c for c in listed if c["id"] != mine and c["flags"] == "N"]


def test_redis_failover_check_is_due_after_interval(moving: MovingRedis) -> None:
    with open_client(Settings(redis_url=moving.url)) as client, moving.old.client() as old:
        client.ping()
        before = calls_of("del", old)
        for _ in range(50):
            client.ping()
        assert calls_of("del", old) - before <= 1, f"one every {CHECK_S:g} s"


def calls_of(command: str, client: redis.Redis) -> int:
    found: dict[str, dict[str, int]] = client.info("commandstats")
    return found.get(f"cmdstat_{command}", {}).get("calls", 0)
