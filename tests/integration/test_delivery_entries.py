"""Logs with entries that this program did not write, and keys that are not what they must be."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import redis

from clusterer import Clusterer
from clusterer.errors import NewerFormat
from clusterer.services import Context
from clusterer.services.doctor import values
from clusterer.services.doctor.finding import Level
from clusterer.services.periodic import sweep
from clusterer.services.status import node_list
from clusterer.services.table import reload as reload_service
from clusterer.settings import Settings
from clusterer.store import keys
from clusterer.store.format import FORMAT
from clusterer.store.packets import PacketLog
from clusterer.store.sessions import SessionStore
from tests.support.cluster import (
    CLUSTER,
    assert_accounted,
    delivering,
    load,
    node,
    node_for,
    numbers,
    stat,
)
from tests.support.frames import frame
from tests.support.processes import wait_until
from tests.support.receiver import BinReceiver

SENDER_KEYS = (
    keys.log,
    keys.counters,
    keys.committed,
    keys.committed_count,
    keys.closing,
    keys.lease,
    keys.stats,
)


SETTINGS = {"linger": 0.3, "send_timeout": 1.0}


@pytest.fixture
def peer(settings: Settings) -> Iterator[BinReceiver]:
    """Node 3; nodes 1 and 2 send to it."""
    with BinReceiver() as receiver:
        load(settings, [node(1), node(2), node_for(3, receiver)])
        yield receiver


def entry(number: int, **changed: Any) -> dict[Any, Any]:
    """Return the fields of an entry of one packet, some of them changed; None leaves one out."""
    usual = {"format": FORMAT, "cluster": 1, "protocol": "bin", "n": number, "packets": 1}
    fields = usual | {"frames": frame(1000 + number)} | changed
    return {name: value for name, value in fields.items() if value is not None}


def add(client: redis.Redis, fields: dict[Any, Any], packets: int = 1) -> int:
    """Append an entry to sender 1's log as another program might; return its sequence."""
    last = client.hincrby(keys.counters(1), "sequence", packets)
    client.hincrby(keys.counters(1), "1:bin", packets)
    client.xadd(keys.log(1), fields, id=f"{last}-{int(time.time() * 1000)}")
    client.sadd("clusterer:pending:clusterer-delivery", 1)
    return int(last)


UNREADABLE: dict[str, dict[str, Any]] = {
    "extra field": {"extra": "x"},
    "missing frames": {"frames": None},
    "missing n": {"n": None},
    "n no number": {"n": "many"},
    "n too small": {"n": 0},
    "n beyond numbers": {"n": "9" * 30},
    "packets no number": {"packets": "one"},
    "packets none": {"packets": 0},
    "packets negative": {"packets": -1},
    "packets more than frames": {"packets": 2, "n": 3},
    "frames cut": {"frames": frame(1)[:-1]},
    "frames too long": {"frames": frame(1) + b"x"},
    "frames junk": {"frames": b"x" * 100},
    "frames empty": {"frames": b""},
    "cluster no number": {"cluster": "one"},
    "cluster zero": {"cluster": 0},
    "cluster huge": {"cluster": 2**40},
    "protocol not text": {"protocol": b"\xff\xfe"},
    "format no number": {"format": "new"},
    "format zero": {"format": 0},
}


@pytest.mark.parametrize("changed", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_unreadable_entry_counts_lost_and_delivery_goes_on(
    settings: Settings,
    redis_client: redis.Redis,
    peer: BinReceiver,
    changed: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    first, second = PacketLog(settings, 1), PacketLog(settings, 2)
    first.append(CLUSTER, [frame(1), frame(2)])
    add(redis_client, entry(3, **changed))
    first.append(CLUSTER, [frame(4)])
    second.append(CLUSTER, [frame(5)])
    with delivering(settings):
        wait_until(lambda: sorted(numbers(peer)) == [1, 2, 4, 5], message="all that can be read")
        wait_until(lambda: not redis_client.exists(keys.lease(1)), message="given back")
    assert stat(redis_client, 3, "lost") == 1
    assert caplog.text.count("sender 1: log entry 3-") == 1
    assert redis_client.xlen(keys.log(1)) == 0
    assert_accounted(settings)


def test_unreadable_entry_at_end_counts_lost_when_idle(
    settings: Settings, redis_client: redis.Redis, peer: BinReceiver
) -> None:
    PacketLog(settings, 1).append(CLUSTER, [frame(1)])
    for n in range(2, 302):
        add(redis_client, {"what": "is this"} if n % 2 else entry(n, frames="x"))
    with delivering(settings):
        wait_until(lambda: stat(redis_client, 3, "lost") == 300, message="counted")
        wait_until(lambda: not redis_client.exists(keys.lease(1)), message="given back")
    assert numbers(peer) == [1]
    assert_accounted(settings)


def test_unreadable_entry_of_several_packets_counts_all(
    settings: Settings, redis_client: redis.Redis, peer: BinReceiver
) -> None:
    log = PacketLog(settings, 1)
    log.append(CLUSTER, [frame(1)])
    add(redis_client, {"gone": "?"}, packets=7)
    log.append(CLUSTER, [frame(9)])
    with delivering(settings):
        wait_until(lambda: numbers(peer) == [1, 9], message="both")
        wait_until(lambda: stat(redis_client, 3, "lost") == 7, message="counted")
    assert_accounted(settings)


@pytest.mark.parametrize("older", [None, "1"])
def test_entry_of_older_format_is_delivered(
    settings: Settings, redis_client: redis.Redis, peer: BinReceiver, older: str | None
) -> None:
    add(redis_client, entry(1, format=older))
    with delivering(settings):
        wait_until(lambda: numbers(peer) == [1001], message="delivered")


@pytest.mark.parametrize("newer", ["3", "77", "12345678901234567890"])
def test_entry_of_newer_format_is_left_alone(
    settings: Settings,
    redis_client: redis.Redis,
    peer: BinReceiver,
    newer: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    add(redis_client, entry(1, format=newer, shape="unknown"))
    before = redis_client.xrange(keys.log(1))
    second = PacketLog(settings, 2)
    with delivering(settings):
        for n in range(10):
            second.append(CLUSTER, [frame(n)])
            peer.wait_for_frames(n + 1)
            sweep.run(Context(settings))
            time.sleep(0.1)
        wait_until(lambda: not redis_client.exists(keys.lease(1)), message="given back")
    assert numbers(peer) == list(range(10))
    assert redis_client.xrange(keys.log(1)) == before
    # A node that refused the connection meanwhile has its offset recorded, which has not moved.
    assert set(redis_client.hvals(keys.committed(1))) <= {b"0"}
    assert redis_client.sismember("clusterer:pending:clusterer-delivery", "1")
    said = [r.getMessage() for r in caplog.records if r.getMessage().startswith("sender 1:")]
    assert len(said) == 1
    assert "log entry 1-" in said[0]
    assert "upgrade this worker" in said[0]


def test_entries_before_newer_format_are_delivered(
    settings: Settings, redis_client: redis.Redis, peer: BinReceiver
) -> None:
    PacketLog(settings, 1).append(CLUSTER, [frame(1), frame(2)])
    add(redis_client, entry(3, format=FORMAT + 1))
    with delivering(settings):
        wait_until(lambda: numbers(peer) == [1, 2], message="what is of our format")
        wait_until(lambda: not redis_client.exists(keys.lease(1)), message="given back")
    assert stat(redis_client, 3, "sent") == 2
    assert max(int(v) for v in redis_client.hvals(keys.committed(1))) == 2


@pytest.mark.parametrize(
    "wild", ["50-1", "900-18446744073709551615", f"{2**53 + 9}-1", f"{2**64 - 1}-{2**64 - 1}"]
)
def test_entry_with_wild_sequence_stops_nothing(
    settings: Settings, redis_client: redis.Redis, peer: BinReceiver, wild: str
) -> None:
    log, second = PacketLog(settings, 1), PacketLog(settings, 2)
    log.append(CLUSTER, [frame(1)])
    redis_client.xadd(keys.log(1), {"wild": "entry"}, id=wild)
    with delivering(settings):
        wait_until(lambda: numbers(peer) == [1], message="before it")
        log.append(CLUSTER, [frame(2), frame(3)])
        second.append(CLUSTER, [frame(4)])
        wait_until(lambda: sorted(numbers(peer)) == [1, 2, 3, 4], message="after it")
        log.append(CLUSTER, [frame(5)])
        wait_until(lambda: 5 in numbers(peer), message="and on")
        wait_until(lambda: not redis_client.exists(keys.lease(1)), message="given back")
    assert stat(redis_client, 3, "lost") == 0
    assert_accounted(settings)


@pytest.mark.parametrize("packets", [1, 3])
@pytest.mark.parametrize("read_first", [True, False])
def test_entry_ahead_of_counters_costs_no_packet(
    settings: Settings,
    redis_client: redis.Redis,
    peer: BinReceiver,
    packets: int,
    read_first: bool,
) -> None:
    """Another program adds an entry; the sender, which does not know of it, gives its number."""
    log = PacketLog(settings, 1)
    log.append(CLUSTER, [frame(1)])
    sent = list(range(2, 2 + packets))
    with delivering(settings):
        peer.wait_for_frames(1)
        if read_first:
            redis_client.xadd(keys.log(1), {"a": 1}, id="2-1")
            wait_until(
                lambda: redis_client.hget(keys.counters(1), "sequence") == b"2",
                message="passed over",
            )
            log.append(CLUSTER, [frame(n) for n in sent])
        else:
            wait_until(lambda: not redis_client.exists(keys.lease(1)), message="given back")
            redis_client.xadd(keys.log(1), {"a": 1}, id="2-1")
            log.append(CLUSTER, [frame(n) for n in sent])
        wait_until(lambda: numbers(peer) == [1, *sent], message="all packets")
        wait_until(lambda: not redis_client.exists(keys.lease(1)), message="given back")
    assert stat(redis_client, 3, "lost") == 0
    assert_accounted(settings)


@pytest.mark.parametrize("wild", ["7-1", f"{2**53 + 9}-1", f"{2**64 - 1}-{2**64 - 1}"])
def test_readers_of_wild_log_answer(
    settings: Settings, redis_client: redis.Redis, peer: BinReceiver, wild: str
) -> None:
    add(redis_client, {"packets": "x"})
    redis_client.xadd(keys.log(1), {"packets": "5"}, id=wild)
    context = Context(settings)
    node_list.run(context)
    context.backlog.trim([1, 2], 0.0)
    assert context.backlog.appended_ms([(1, 2**60), (1, 0)])
    found = context.nodes.read(CLUSTER, 3)[0]
    assert found
    context.backlog.unread(1, found)


def test_readers_of_logs_pass_over_key_of_wrong_type(
    settings: Settings, redis_client: redis.Redis
) -> None:
    PacketLog(settings, 1).append(CLUSTER, [frame(1)])
    redis_client.set(keys.log(2), "x")
    backlog = Context(settings).backlog
    of_no_log, appended_ms = backlog.appended_ms([(2, 0), (1, 0)])
    assert of_no_log == 0 < appended_ms
    backlog.trim([2, 1], -1.0)
    assert redis_client.xlen(keys.log(1)) == 0
    assert redis_client.get(keys.log(2)) == b"x"


@pytest.mark.parametrize("wrong", ["list", "value"])
@pytest.mark.parametrize("name", SENDER_KEYS, ids=lambda name: str(name.__name__))
def test_wrong_key_of_one_sender_stops_no_other(
    settings: Settings,
    redis_client: redis.Redis,
    peer: BinReceiver,
    name: Callable[[int], str],
    wrong: str,
) -> None:
    first, second = PacketLog(settings, 1), PacketLog(settings, 2)
    with delivering(replace(settings, linger=5.0)):
        first.append(CLUSTER, [frame(1)])
        second.append(CLUSTER, [frame(2)])
        peer.wait_for_frames(2)
        wait_until(lambda: redis_client.hlen(keys.committed(1)), message="recorded")
        spoil(redis_client, name(1), wrong)
        redis_client.sadd("clusterer:pending:clusterer-delivery", 1)
        for n in range(3, 9):
            second.append(CLUSTER, [frame(n)])
            peer.wait_for_frames(n)
            time.sleep(0.15)
    with delivering(settings):  # another worker, which finds it so
        second.append(CLUSTER, [frame(9)])
        wait_until(lambda: 9 in numbers(peer), message="packet 9 of sender 2")


def spoil(client: redis.Redis, key: str, wrong: str) -> None:
    """Make a key a list, or give it a value that is not what it must be."""
    kind = client.type(key)
    if wrong == "list" or kind == b"none":
        client.delete(key)
        client.rpush(key, "oops")
    elif kind == b"hash":
        for field in [*client.hkeys(key), "oops"]:
            client.hset(key, field, "oops")
    elif kind == b"string":
        client.set(key, "oops")
    else:
        client.delete(key)


def test_sender_resumes_once_its_key_is_repaired(
    settings: Settings,
    redis_client: redis.Redis,
    peer: BinReceiver,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("clusterer.delivery.placement.HOLD_S", 1.0)
    PacketLog(settings, 1).append(CLUSTER, [frame(1)])
    redis_client.rpush(keys.committed(1), "oops")
    with delivering(settings):
        wait_until(
            lambda: "key clusterer:committed:1 holds a list, expected a hash" in caplog.text,
            message="said",
        )
        time.sleep(1.5)
        assert caplog.text.count("key clusterer:committed:1 holds a list") == 1
        redis_client.delete(keys.committed(1))
        wait_until(lambda: numbers(peer) == [1], message="delivered")


def test_format_is_noted_by_first_write(settings: Settings, redis_client: redis.Redis) -> None:
    PacketLog(settings, 1).append(CLUSTER, [frame(1)])
    assert redis_client.get(keys.FORMAT) == b"%d" % FORMAT


def test_newer_format_is_not_written_to(
    settings: Settings, redis_client: redis.Redis, peer: BinReceiver
) -> None:
    redis_client.set(keys.FORMAT, FORMAT + 1)
    context = Context(replace(settings, db_url="sqlite://"))
    before = redis_client.dbsize()
    with Clusterer(1, settings=settings) as cluster:
        with pytest.raises(NewerFormat, match=r"clusterer:format is 3.*upgrade clusterer"):
            cluster.send_to(1, "bin", cluster.packet("m", 1).build())
        with pytest.raises(NewerFormat):
            cluster.set_state(1, 3, 0, "bin")
    with pytest.raises(NewerFormat):
        sweep.run(context)
    with pytest.raises(NewerFormat):
        reload_service.run(context)
    assert redis_client.dbsize() == before


@pytest.mark.parametrize(
    ("value", "level"),
    [("1", Level.WARN), ("2", Level.OK), ("3", Level.ERROR), ("new", Level.ERROR)],
)
def test_doctor_names_format(
    settings: Settings, redis_client: redis.Redis, value: str, level: Level
) -> None:
    redis_client.set(keys.FORMAT, value)
    found = {f.check: f for f in values.check_format(Context(settings))}
    assert found["redis format"].level is level


def test_seek_with_older_tail_finds_later_entries(
    settings: Settings, redis_client: redis.Redis
) -> None:
    log = PacketLog(settings, 1)
    for n in range(5):
        log.append(CLUSTER, [frame(n)])
    later = int(redis_client.time()[0]) * 1000 + 1000
    wait_until(lambda: int(redis_client.time()[0]) * 1000 > later, message="a time behind all")
    assert SessionStore(settings, settings.delivery_queue, "me").seek(1, later, 1) == 5
