"""Wrong values and types in keys that all senders of a queue share: deliveries go on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import pytest
import redis

from clusterer.errors import StateUnavailable
from clusterer.settings import Settings
from clusterer.store import keys
from clusterer.store.packets import PacketLog
from tests.support.cluster import CLUSTER, delivering, load, node, node_for, numbers
from tests.support.frames import frame
from tests.support.processes import wait_until
from tests.support.receiver import BinReceiver
from tests.support.wrong_values import put_wrong_type, put_wrong_value

QUEUE = "clusterer:delivery"
OF_QUEUE = (
    keys.pending(QUEUE),
    keys.waiting(QUEUE),
    keys.enqueued(QUEUE),
    keys.ring(QUEUE),
    keys.shares(QUEUE),
)
BESIDE = (
    keys.CLUSTERS,
    keys.QUEUES,
    keys.SENDERS,
    keys.HANDOVERS,
    keys.nodes(*CLUSTER),
    keys.version(*CLUSTER),
    keys.due(*CLUSTER),
)


SETTINGS = {"delivery_queue": QUEUE, "linger": 5.0}


@pytest.fixture
def peer(settings: Settings) -> Iterator[BinReceiver]:
    """Node 3, which gets what node 1 sends."""
    with BinReceiver() as receiver:
        load(settings, [node(1), node_for(3, receiver)])
        yield receiver


@pytest.mark.parametrize("key", [*OF_QUEUE, *BESIDE])
def test_delivery_with_wrong_value_beside_it_goes_on(
    settings: Settings, redis_client: redis.Redis, peer: BinReceiver, key: str
) -> None:
    log = PacketLog(settings, 1)
    with delivering(settings):
        log.append(CLUSTER, [frame(0)])
        peer.wait_for_frames(1)
        put_wrong_value(redis_client, key)
        for number in range(1, 4):
            log.append(CLUSTER, [frame(number)])
            peer.wait_for_frames(number + 1)
    put_wrong_value(redis_client, key)
    with delivering(settings):  # another worker, which finds the value when it starts
        log.append(CLUSTER, [frame(4)])
        peer.wait_for_frames(5)
    assert numbers(peer) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("key", OF_QUEUE)
def test_delivery_after_wrong_type_of_queue_key_resumes(
    settings: Settings, redis_client: redis.Redis, peer: BinReceiver, key: str
) -> None:
    log = PacketLog(settings, 1)
    with delivering(settings):
        log.append(CLUSTER, [frame(0)])
        peer.wait_for_frames(1)
        put_wrong_type(redis_client, key)
        with suppress(StateUnavailable):
            log.append(CLUSTER, [frame(1)])
        with suppress(TimeoutError):  # packet 1 may be lost with the key
            wait_until(lambda: 1 in numbers(peer), 1)
        redis_client.delete(key)
        log.append(CLUSTER, [frame(2)])
        wait_until(lambda: 2 in numbers(peer), message="packet 2 arrives")


def test_delivery_with_endless_version_goes_on(
    settings: Settings, redis_client: redis.Redis, peer: BinReceiver
) -> None:
    redis_client.set(keys.version(*CLUSTER), "9" * 5000)
    with delivering(settings):
        PacketLog(settings, 1).append(CLUSTER, [frame(0)])
        peer.wait_for_frames(1)
