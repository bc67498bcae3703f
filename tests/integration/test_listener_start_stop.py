"""Start and stop of the listener, registration of callbacks, and both without Redis."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator

import pytest
import redis

from clusterer.errors import ClustererError, InvalidArgument, StateUnavailable
from clusterer.listener import Listener
from clusterer.store import keys
from tests.support.frames import frame
from tests.support.listening import Recorded, ended, listener_of, peer, register, serving
from tests.support.ports import free_port
from tests.support.processes import EVENTUALLY_S, LATE_S, wait_until
from tests.support.redis_server import RedisServer
from tests.support.seeding import make_node, put_node


def test_stop_before_serve_makes_it_return_at_once(listener: Listener) -> None:
    listener.stop()
    listener.stop()
    listener.serve()


def test_stop_closes_everything(listener: Listener, port: int) -> None:
    with peer_after_serving(listener, port) as connection:
        assert ended(connection)
    with pytest.raises(ConnectionRefusedError), peer(port):
        pass


@contextlib.contextmanager
def peer_after_serving(listener: Listener, port: int) -> Iterator[socket.socket]:
    with contextlib.ExitStack() as stack:
        with serving(listener):
            connection = stack.enter_context(peer(port))
            wait_until(lambda: listener.counters.connections_open == 1)
        yield connection


def test_listener_callback_may_stop_it(listener: Listener, port: int) -> None:
    register(listener, Recorded(act=lambda kind: listener.stop()))
    with serving(listener) as thread, peer(port) as connection:
        connection.sendall(frame(sender=2))
        thread.join(EVENTUALLY_S)
        assert not thread.is_alive()


def test_listener_serves_once(listener: Listener) -> None:
    listener.stop()
    listener.serve()
    with pytest.raises(ClustererError, match="once"):
        listener.serve()


@pytest.mark.parametrize(
    "changes",
    [
        {"cluster_id": None},
        {"cluster_id": 0},
        {"cluster_id": None, "auth_check": False, "timeout_s": 1},
        {"cluster_id": -1},
        {"timeout_s": -1},
        {"timeout_s": float("nan")},
        {"timeout_s": "5"},
        {"module": ""},
        {"module": "\udcff"},
    ],
    ids=repr,
)
def test_listener_invalid_registration_is_refused(
    listener: Listener, redis_client: redis.Redis, changes: dict[str, object]
) -> None:
    with pytest.raises(InvalidArgument):
        register(listener, Recorded(), **changes)
    assert not redis_client.exists(keys.modules(1))


@pytest.mark.parametrize("callback", [None, "print"])
def test_listener_callback_not_callable_is_refused(listener: Listener, callback: Recorded) -> None:
    with pytest.raises(InvalidArgument, match="ratelimit"):
        register(listener, callback)


# -- Redis away ------------------------------------------------------------------------------


def test_registration_fails_while_redis_is_away_and_works_later(
    own_redis_server: Callable[[], RedisServer],
) -> None:
    server = own_redis_server()
    with listener_of(server.url) as listener:
        register(listener, Recorded(), module="first")
        server.stop()
        with pytest.raises(StateUnavailable, match="ratelimit"):
            register(listener, Recorded())
        server.start()
        register(listener, Recorded())
        with server.client() as client:
            assert set(client.hkeys(keys.modules(1))) >= {b"first:1", b"ratelimit:1"}


def test_serve_waits_for_redis_and_says_so_once(
    own_redis_server: Callable[[], RedisServer], caplog: pytest.LogCaptureFixture
) -> None:
    server = own_redis_server()
    port = free_port()
    with server.client() as client:
        put_node(client, make_node(1, port=port))
    server.stop()
    with listener_of(server.url) as listener, serving(listener, ready=False) as thread:
        wait_until(lambda: any("not listening yet" in line for line in caplog.messages))
        time.sleep(0.6)
        assert thread.is_alive()
        server.start()
        assert listener.ready.wait(EVENTUALLY_S)
    assert sum("not listening yet" in line for line in caplog.messages) == 1


def test_stop_ends_waiting_for_redis(redis_server: RedisServer) -> None:
    nowhere = f"redis://127.0.0.1:{free_port()}/0"
    with listener_of(nowhere) as listener, serving(listener, ready=False):
        time.sleep(0.3)


@pytest.mark.parametrize("how", ["frozen", "stopped"])
def test_packets_are_dispatched_while_redis_is_away(
    own_redis_server: Callable[[], RedisServer], how: str
) -> None:
    server = own_redis_server()
    port = free_port()
    with server.client() as client:
        put_node(client, make_node(1, port=port))
        put_node(client, make_node(2, port=port))
    with listener_of(server.url) as listener:
        recorded = register(listener, Recorded(), timeout_s=5)
        with serving(listener):
            server.pause() if how == "frozen" else server.stop()
            try:
                started = time.monotonic()
                for number in range(20):
                    with peer(port) as connection:
                        connection.sendall(frame(kind=number, sender=2))
                        recorded.wait_for(number, 2)
                    time.sleep(0.1)
                assert time.monotonic() - started < 20 + LATE_S, "each of them waited for Redis"
            finally:
                if how == "frozen":
                    server.resume()
