"""Logs that lose packets under the delivery: trimmed, or from an older Redis."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import replace

import redis

from clusterer import StateUnavailable
from clusterer.settings import Settings
from clusterer.store import keys
from clusterer.store.packets import PacketLog
from tests.support.cluster import CLUSTER, delivering, load, node, node_for, numbers, stat
from tests.support.frames import frame
from tests.support.processes import wait_until
from tests.support.receiver import BinReceiver
from tests.support.redis_server import RedisServer

SETTINGS = {"linger": 0.3, "send_timeout": 1.0}


def test_delivery_trim_under_stuck_node_counts_its_loss_only(
    settings: Settings, redis_client: redis.Redis
) -> None:
    settings = replace(settings, log_max_packets=2000, send_timeout=30.0)
    with BinReceiver(receive_buffer=4096) as stuck, BinReceiver() as healthy:
        load(settings, [node(1), node_for(2, stuck), node_for(3, healthy)])
        log = PacketLog(settings, 1)
        total = 20_000
        with delivering(settings):
            stuck.pause()
            for start in range(0, total, 100):
                log.append(CLUSTER, [frame(n, size=1000) for n in range(start, start + 100)])
                healthy.wait_for_frames(start + 100)
            stuck.resume()
            wait_until(lambda: stat(redis_client, 2, "lost") > 0, message="loss counted")
            wait_until(
                lambda: (
                    sum(stat(redis_client, 2, name) for name in ("sent", "lost", "skipped"))
                    == total
                ),
                message="every packet is sent, lost or skipped",
            )
    assert numbers(healthy) == list(range(total))
    assert stat(redis_client, 3, "lost") == 0
    got = numbers(stuck)
    assert got == sorted(got)


def test_delivery_survives_redis_with_older_data(
    own_redis_server: Callable[[], RedisServer],
) -> None:
    """Redis has neither the last 50 packets nor the record of their delivery."""
    server = own_redis_server()
    settings = Settings(redis_url=server.url, linger=0.3, send_timeout=1.0)
    files, older = server.directory / "appendonlydir", server.directory / "older"
    with BinReceiver() as peer:
        load(settings, [node(1), node_for(2, peer)])
        log = PacketLog(settings, 1)
        with delivering(settings):
            log.append(CLUSTER, [frame(n) for n in range(50)])
            peer.wait_for_frames(50)
            with server.client() as client:
                wait_until(lambda: not client.exists(keys.lease(1)), message="given back")
            time.sleep(1.5)  # appendfsync everysec
            shutil.copytree(files, older)
            log.append(CLUSTER, [frame(n) for n in range(50, 100)])
            peer.wait_for_frames(100)
            server.kill()
            shutil.rmtree(files)
            older.rename(files)
            server.start()
            wait_until(lambda: _appended(log, 100), message="append")
            wait_until(lambda: 100 in numbers(peer), message="delivery goes on")
            with server.client() as client:
                wait_until(lambda: stat(client, 2, "sent") == 51, message="counted")
                wait_until(lambda: stat(client, 2, "lost") == 50, message="counted as lost")
                assert int(client.hget(keys.counters(1), "1:bin") or 0) == 101
    assert numbers(peer) == list(range(101))


def _appended(log: PacketLog, number: int) -> bool:
    try:
        log.append(CLUSTER, [frame(number)])
    except StateUnavailable:
        return False
    return True
