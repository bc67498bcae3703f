"""Keys of a node that was removed or moved are deleted at once, for every sender."""

from __future__ import annotations

import time
from dataclasses import replace

import redis

from clusterer.settings import Settings
from clusterer.store import keys
from clusterer.store.badvalues import text
from clusterer.store.packets import PacketLog
from tests.support.cluster import CLUSTER, delivering, load, node, node_for, stat
from tests.support.frames import frame
from tests.support.processes import wait_until
from tests.support.receiver import BinReceiver

HASHES = (keys.committed, keys.committed_count, keys.closing, keys.stats)


SETTINGS = {"linger": 0.2, "send_timeout": 1.0}


def kept(client: redis.Redis, *senders: int) -> set[str]:
    """Return the destinations of which anything is in Redis."""
    fields = (f for s in senders for name in HASHES for f in client.hkeys(name(s)))
    return {"/".join(text(field).split("/")[:3]) for field in fields}


def present(client: redis.Redis) -> set[str]:
    """Return the destinations that there are."""
    machines = map(int, client.smembers(keys.nodes(*CLUSTER)))
    found = {m: client.hget(keys.node(*CLUSTER, m), "generation") for m in machines}
    return {f"1/{m}/{int(generation or 0)}" for m, generation in found.items()}


def idle(client: redis.Redis, *senders: int) -> bool:
    return not any(client.exists(keys.lease(s), keys.closing(s)) for s in senders)


def test_delivery_removed_node_is_deleted_for_all_senders(
    settings: Settings, redis_client: redis.Redis
) -> None:
    senders = (1, 11, 12)
    with BinReceiver() as stays, BinReceiver() as goes:
        own = [node(s) for s in senders]
        load(settings, [*own, node_for(2, stays), node_for(3, goes)])
        with delivering(settings):
            for sender in senders:
                PacketLog(settings, sender).append(CLUSTER, [frame(n) for n in range(10)])
            goes.wait_for_frames(30)
            wait_until(lambda: idle(redis_client, *senders), message="logs given back")
        assert len([f for f in kept(redis_client, *senders) if f.startswith("1/3/")]) == 1
        load(settings, [*own, node_for(2, stays)])
        assert not [f for f in kept(redis_client, *senders) if f.startswith("1/3/")]
        assert stat(redis_client, 2, "sent", sender=11) == 10, "others keep their figures"
        load(settings, [*own, node_for(2, stays), node_for(3, goes)])
        assert stat(redis_client, 3, "sent") == 0, "added again, it begins at 0"
        load(settings, [*own, node_for(2, goes), node_for(3, goes)])
        assert not [f for f in kept(redis_client, *senders) if f.startswith("1/2/")], "moved"


def test_delivery_deleted_set_of_senders_is_restored(
    settings: Settings, redis_client: redis.Redis
) -> None:
    with BinReceiver() as peer:
        load(settings, [node(1), node_for(2, peer)])
        log = PacketLog(settings, 1)
        with delivering(settings):
            for number in range(2):
                redis_client.delete(keys.SENDERS)
                log.append(CLUSTER, [frame(number)])
                peer.wait_for_frames(number + 1)
                wait_until(lambda: idle(redis_client, 1), message="log given back")
        load(settings, [node(1)])
    assert kept(redis_client, 1) == set()


def test_delivery_record_after_removal_restores_nothing(
    settings: Settings, redis_client: redis.Redis
) -> None:
    """The node goes at any moment of a delivery: while it is read, recorded, released, closed."""
    settings = replace(settings, linger=0.02)
    with BinReceiver() as stays, BinReceiver() as goes:
        log = PacketLog(settings, 1)
        with delivering(settings):
            for number in range(100):
                load(settings, [node(1), node_for(2, stays), node_for(3, goes)])
                log.append(CLUSTER, [frame(number)])
                time.sleep(number % 20 * 0.003)
                load(settings, [node(1), node_for(2, stays)])
                wait_until(lambda: idle(redis_client, 1), message="log given back")
                wait_until(lambda: kept(redis_client, 1) <= present(redis_client), message="gone")
