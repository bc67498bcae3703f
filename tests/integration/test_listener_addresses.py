"""The addresses that the listener binds: those of its instance's rows, as they change."""

from __future__ import annotations

import logging
import socket
import time
from dataclasses import replace

import pytest
import redis

from clusterer.listener import Listener
from clusterer.listener.server import TICK_S
from tests.support.frames import frame
from tests.support.listening import Recorded, ended, listener_of, peer, register, serving
from tests.support.ports import free_port
from tests.support.processes import EVENTUALLY_S, wait_until
from tests.support.seeding import make_node, put_node


def test_listener_binds_own_rows_of_all_clusters(
    listener: Listener, port: int, redis_client: redis.Redis
) -> None:
    other = free_port("127.0.0.1")
    put_node(redis_client, make_node(1, cluster_id=2, port=other))
    put_node(redis_client, make_node(1, cluster_id=3, port=port))
    put_node(redis_client, make_node(1, cluster_id=4, port=free_port(), protocol="sip"))
    with serving(listener):
        assert set(listener.addresses) == {("127.0.0.1", port), ("127.0.0.1", other)}
    assert listener.addresses == ()


def test_listener_without_row_waits_for_row(
    redis_url: str, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    with listener_of(redis_url) as listener:
        recorded = register(listener, Recorded())
        with serving(listener, ready=False):
            wait_until(lambda: any("no row" in line for line in caplog.messages))
            assert not listener.ready.wait(0.6)
            port = free_port()
            put_node(redis_client, make_node(1, port=port))
            put_node(redis_client, make_node(2, port=port))
            assert listener.ready.wait(EVENTUALLY_S)
            with peer(port) as connection:
                connection.sendall(frame(sender=2))
                recorded.wait_for(1, 2)
    assert sum("no row" in line for line in caplog.messages) == 1


def test_listener_new_address_keeps_unchanged_connections(
    listener: Listener, port: int, redis_client: redis.Redis
) -> None:
    first, moved = free_port(), free_port()
    row = put_node(redis_client, make_node(1, cluster_id=2, port=first))
    recorded = register(listener, Recorded())
    with serving(listener), peer(port) as kept, peer(first) as given_up:
        kept.sendall(frame(sender=2))
        recorded.wait_for(1, 2)
        put_node(redis_client, replace(row, port=moved, version=2))
        assert ended(given_up)
        wait_until(lambda: ("127.0.0.1", moved) in listener.addresses)
        with pytest.raises(ConnectionRefusedError), peer(first):
            pass
        kept.sendall(frame(kind=2, sender=2))
        recorded.wait_for(2, 2)
        with peer(moved) as connection:
            connection.sendall(frame(kind=3, sender=2))
            recorded.wait_for(3, 2)


def test_listener_address_in_use_is_logged_and_retried(
    listener: Listener, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", port)), serving(listener, ready=False) as thread:
        wait_until(lambda: any("cannot listen" in line for line in caplog.messages))
        assert not listener.ready.wait(0.8)
        assert thread.is_alive()
        blocked = [line for line in caplog.messages if "cannot listen" in line]
        assert len(blocked) == 1
        assert f"127.0.0.1 port {port}" in blocked[0]


def test_listener_freed_address_is_bound(listener: Listener, port: int) -> None:
    blocker = socket.create_server(("127.0.0.1", port))
    with blocker, serving(listener, ready=False):
        assert not listener.ready.wait(0.5)
        blocker.close()
        assert listener.ready.wait(EVENTUALLY_S)


def test_listener_ipv6_row_is_bound_and_authenticated(
    redis_url: str, redis_client: redis.Redis
) -> None:
    port = free_port()
    put_node(redis_client, make_node(1, host="::1", port=port))
    put_node(redis_client, make_node(2, host="0:0:0:0:0:0:0:1", port=port))
    with listener_of(redis_url) as listener:
        recorded = register(listener, Recorded())
        with serving(listener), socket.create_connection(("::1", port)) as connection:
            connection.sendall(frame(sender=2))
            recorded.wait_for(1, 2)


def test_listener_address_is_bound_once_and_logged(
    listener: Listener, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "clusterer.listener")
    with serving(listener):
        time.sleep(3 * TICK_S)
    lines = [line for line in caplog.messages if "listen" in line]
    assert lines == [f"listening on 127.0.0.1 port {port}"]
    assert {vars(record).get("url") for record in caplog.records} == {f"bin:127.0.0.1:{port}"}
