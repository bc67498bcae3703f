"""The connection of a channel ends with the channel's owner, also without a call of `close`."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest
import redis

from clusterer import Settings
from clusterer.store.packets import PacketLog
from clusterer.store.sessions import SessionStore
from tests.support.cluster import CLUSTER
from tests.support.frames import frame
from tests.support.processes import wait_until


def use_packet_log(settings: Settings) -> None:
    PacketLog(settings, 1).append(CLUSTER, [frame(1)])


def use_session_store(settings: Settings) -> None:
    store = SessionStore(settings, settings.delivery_queue, "test")
    store.begin()
    store.claim_all([1])


def connections(client: redis.Redis) -> set[str]:
    return {each["id"] for each in client.client_list()}


@pytest.mark.parametrize("use", [use_packet_log, use_session_store])
def test_channel_of_dropped_owner_closes_without_gc(
    use: Callable[[Settings], None], settings: Settings, redis_client: redis.Redis
) -> None:
    """The garbage collector may close the socket before its connection, and warn of it."""
    before = connections(redis_client)
    gc.collect()
    gc.disable()
    try:
        use(settings)
        wait_until(lambda: connections(redis_client) <= before, 10.0)
    finally:
        gc.enable()
