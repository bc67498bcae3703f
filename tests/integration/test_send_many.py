"""`send_many` of any size: bounded calls, and an error that says what is stored."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import redis

from clusterer import Clusterer
from clusterer.errors import StateUnavailable
from clusterer.settings import Settings
from clusterer.store import ClusterKey, keys
from clusterer.store.append_commands import MAX_CALL, MAX_ENTRY, sub_batches
from clusterer.store.packets import PacketLog
from clusterer.wire import Packet
from tests.support.cluster import CLUSTER, load, node
from tests.support.frames import frame
from tests.support.streams import entries


@pytest.fixture
def cluster(redis_client: redis.Redis, redis_url: str) -> Iterator[Clusterer]:
    settings = Settings(redis_url=redis_url)
    load(settings, [node(1), node(2)])
    with Clusterer(1, settings=settings) as made:
        yield made


def large(cluster: Clusterer, size: int = 40_000) -> Packet:
    return cluster.packet("m", 1).push_str(b"x" * size).build()


def scripts_run(client: redis.Redis) -> int:
    """Return how many script calls this Redis has served."""
    stats: Any = client.info("commandstats")
    return int(stats["cmdstat_evalsha"]["calls"])


def test_send_many_of_any_size_is_stored_in_parts(
    cluster: Clusterer, redis_client: redis.Redis
) -> None:
    packet = large(cluster)
    cluster.send_to(1, "bin", packet)
    before = scripts_run(redis_client)
    assert cluster.send_many(1, "bin", [packet] * 1000) == 1
    assert scripts_run(redis_client) - before >= 1000 * len(packet.encode()) / MAX_CALL
    assert redis_client.hget(keys.counters(1), "sequence") == b"1001"


def test_send_many_entries_hold_frames_within_bound(
    redis_client: redis.Redis, redis_url: str
) -> None:
    frames = [frame(number, size=200) for number in range(1000)]
    PacketLog(Settings(redis_url=redis_url), 1).append(CLUSTER, frames)
    found = [fields[b"frames"] for _, fields in entries(redis_client, keys.log(1))]
    assert b"".join(found) == b"".join(frames)
    assert len(found) == -(-sum(map(len, frames)) // MAX_ENTRY)
    assert max(map(len, found)) <= MAX_ENTRY


def test_send_many_that_fails_says_what_is_stored(
    cluster: Clusterer, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, calls = PacketLog.append, [0]

    def third_fails(log: PacketLog, key: ClusterKey, frames: Sequence[bytes]) -> bool:
        calls[0] += 1
        if calls[0] == 3:
            redis_client.config_set("maxmemory", 1)
        return append(log, key, frames)

    monkeypatch.setattr(PacketLog, "append", third_fails)
    packets = [large(cluster)] * 100
    try:
        with pytest.raises(StateUnavailable, match="maxmemory") as caught:
            cluster.send_many(1, "bin", packets)
    finally:
        redis_client.config_set("maxmemory", 0)
    stored = int(redis_client.hget(keys.counters(1), "sequence") or 0)
    assert 0 < caught.value.accepted == stored < 100
    assert stored * len(large(cluster).encode()) <= 2 * MAX_CALL
    cluster.send_many(1, "bin", packets[stored:])
    assert redis_client.hget(keys.counters(1), "sequence") == b"100"


def test_send_many_that_cannot_begin_accepted_none(
    cluster: Clusterer, redis_client: redis.Redis
) -> None:
    assert cluster.get_nodes(1, "bin")
    redis_client.config_set("maxmemory", 1)
    try:
        with pytest.raises(StateUnavailable) as caught:
            cluster.send_many(1, "bin", [large(cluster)] * 3)
    finally:
        redis_client.config_set("maxmemory", 0)
    assert caught.value.accepted == 0


def test_send_many_in_threads_raises_own_errors(redis_client: redis.Redis, redis_url: str) -> None:
    log = PacketLog(Settings(redis_url=redis_url), 1)
    log.append(CLUSTER, [frame(0)])
    redis_client.config_set("maxmemory", 1)
    errors: list[StateUnavailable] = []

    def append() -> None:
        try:
            log.append(CLUSTER, [frame(1)] * 20)
        except StateUnavailable as error:
            errors.append(error)

    threads = [threading.Thread(target=append) for _ in range(20)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        redis_client.config_set("maxmemory", 0)
    assert len(set(map(id, errors))) == 20


@pytest.mark.parametrize("sizes", [[1], [], [40_000] * 50, [MAX_CALL, 1, MAX_CALL], [7] * 100_000])
def test_sub_batches_keep_order_and_bound(sizes: list[int]) -> None:
    frames = [bytes(size) for size in sizes]
    parts = list(sub_batches(frames))
    assert [f for part in parts for f in part] == frames
    assert all(part and sum(map(len, part)) <= MAX_CALL for part in parts)
