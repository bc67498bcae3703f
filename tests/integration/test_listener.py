"""The listener over real sockets and a real Redis."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import redis

from clusterer.errors import ClustererError, InvalidArgument, StateUnavailable
from clusterer.listener import Listener
from clusterer.listener.drops import UNKNOWN_MODULES_NAMED
from clusterer.listener.server import TICK_S
from clusterer.store import keys
from clusterer.wire import PacketBuilder
from tests.support.frames import frame
from tests.support.listening import Recorded, ended, listener_of, peer, send_until, serving
from tests.support.ports import free_port
from tests.support.processes import EVENTUALLY_S, LATE_S, wait_until
from tests.support.redis_server import RedisServer
from tests.support.seeding import make_node, put_node


def register(listener: Listener, callback: Recorded, **changes: object) -> Recorded:
    options = {"timeout_s": 0, "auth_check": True, "cluster_id": 1} | changes
    module = options.pop("module", "ratelimit")
    listener.register(module, callback, **options)  # type: ignore[arg-type]
    return callback


# -- who gets what ---------------------------------------------------------------------------


def test_listener_packet_reaches_callback_with_source(listener: Listener, port: int) -> None:
    recorded = register(listener, Recorded())
    with serving(listener), peer(port, 2, "127.0.0.1") as connection:
        connection.sendall(frame(kind=7, sender=2))
        recorded.wait_for(7, 2)
        _, info, _ = recorded.calls[0]
        assert info is not None
        assert info.source == connection.getsockname()
        assert (info.packet.module, info.packet.type, info.packet.machine_id) == ("ratelimit", 7, 2)
        assert info.packet.encode() == frame(kind=7, sender=2)


def test_frames_cut_anywhere_arrive_whole_and_in_order(listener: Listener, port: int) -> None:
    recorded = register(listener, Recorded())
    with serving(listener), peer(port) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"".join(frame(kind=kind, sender=2) for kind in range(3)):
            connection.sendall(bytes([byte]))
        connection.sendall(b"".join(frame(kind=kind, sender=2) for kind in range(3, 5_000)))
        wait_until(lambda: len(recorded.calls) == 5_000)
    assert [kind for kind, _ in recorded.seen] == list(range(5_000))
    assert listener.counters.packets == 5_000
    assert listener.counters.bytes == 5_000 * len(frame(kind=0, sender=2))


def test_listener_every_callback_of_module_gets_packet(listener: Listener, port: int) -> None:
    first, second = register(listener, Recorded()), register(listener, Recorded(), auth_check=False)
    with serving(listener), peer(port) as connection:
        connection.sendall(frame(sender=2))
        first.wait_for(1, 2)
        second.wait_for(1, 2)


def test_listener_module_registered_late_gets_open_connections(
    listener: Listener, port: int
) -> None:
    first, second = register(listener, Recorded()), Recorded()
    with serving(listener), peer(port) as connection:
        connection.sendall(frame(sender=2))
        first.wait_for(1, 2)
        register(listener, second)
        connection.sendall(frame(kind=2, sender=2))
        second.wait_for(2, 2)


@pytest.mark.parametrize(
    ("source", "machine_id"),
    [(9, 9), (3, 2), (2, 3), (1, 1), (2, 4)],
    ids=["stranger", "wrong address", "other's id", "own id", "unknown id"],
)
def test_auth_check_drops_who_is_not_a_known_pair(
    listener: Listener,
    port: int,
    source: int,
    machine_id: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    checked, open_to_all = register(listener, Recorded()), Recorded()
    register(listener, open_to_all, auth_check=False)
    with serving(listener), peer(port, source) as connection:
        connection.sendall(frame(sender=machine_id) * 100)
        open_to_all.wait_for(1, machine_id, 100)
    assert checked.calls == []
    assert listener.counters.drops == {"unknown source": 100}
    lines = [line for line in caplog.messages if "unknown source" in line]
    assert len(lines) == 1
    assert f"127.0.0.{source}" in lines[0]


def test_listener_reload_applies_to_open_connections(
    listener: Listener, port: int, redis_client: redis.Redis
) -> None:
    recorded = register(listener, Recorded())
    with serving(listener), peer(port, 4) as connection:
        connection.sendall(frame(sender=4))
        wait_until(lambda: listener.counters.drops["unknown source"] == 1)
        put_node(redis_client, make_node(4, port=port))
        send_until(connection, recorded, 2, 4)


def test_packets_and_bytes_are_counted_by_module_and_machine(listener: Listener, port: int) -> None:
    listener.counters.weigh = True
    recorded = register(listener, Recorded(), auth_check=False)
    register(listener, recorded, module="dialog", auth_check=False)
    big = PacketBuilder("dialog", 2, 3).push_str(b"x" * 900).build().encode()
    burst = (
        frame(kind=0, sender=2) * 3
        + big * 2
        + frame(kind=-1, sender=2)
        + big
        + frame(kind=0, module="ul", sender=2)
        + frame(kind=0, sender=2)
        + frame(kind=5, sender=99)
    )
    with serving(listener), peer(port) as connection:
        for _ in range(100):
            connection.sendall(burst)
        recorded.wait_for(5, 99, 100)
    received = listener.counters.received
    found = {key: (tally.packets, tally.bytes) for key, tally in received.items()}
    found = {key: tally for key, tally in found.items() if tally != (0, 0)}
    others = found.pop(("ul", 2), (0, 0))  # a node's packets without a registration
    assert found == {
        ("ratelimit", 2): (400, 400 * len(frame(kind=0, sender=2))),
        ("dialog", 3): (300, 300 * len(big)),
    }
    assert others[0] + listener.counters.others.packets == 300
    assert listener.counters.packets == 1000


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (frame(kind=-1, sender=2), "negative type"),
        (frame(kind=-2, sender=2), "negative type"),
        (frame(kind=0, module="dialog", sender=2), "unknown module"),
        (struct.pack("<4sHHhHi4si", b"P4CK", 24, 0, 1, 0, 4, b"name", 3), "no machine_id"),
    ],
    ids=["-1", "-2", "module", "machine_id"],
)
def test_listener_unusable_packet_is_dropped_and_counted(
    listener: Listener, port: int, data: bytes, reason: str
) -> None:
    recorded = register(listener, Recorded(), auth_check=False)
    with serving(listener), peer(port) as connection:
        connection.sendall(data * 2 + frame(kind=5, sender=2))
        recorded.wait_for(5, 2)
    assert recorded.seen == [(5, 2)]
    assert listener.counters.drops == {reason: 2}


def test_unknown_module_is_logged_once_and_no_warning(
    listener: Listener, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    recorded = register(listener, Recorded(), auth_check=False)
    with serving(listener):
        for _ in range(2):
            with peer(port) as connection:
                connection.sendall(
                    frame(kind=0, module="dialog", sender=2) * 3
                    + frame(kind=0, module="ul", sender=2)
                    + frame(kind=5, sender=2)
                )
                recorded.wait_for(5, 2)
            listener._dispatcher.invalidate()
            recorded.calls.clear()
        for number in range(2 * UNKNOWN_MODULES_NAMED):
            with peer(port) as connection:
                connection.sendall(
                    frame(kind=0, module=f"m{number}", sender=2) + frame(kind=6, sender=2)
                )
                recorded.wait_for(6, 2)
                recorded.calls.clear()
    said = [
        record
        for record in caplog.records
        if "not registered in this instance" in record.getMessage()
    ]
    assert len(said) == UNKNOWN_MODULES_NAMED
    assert {record.levelno for record in said} == {logging.INFO}
    assert sum("'dialog'" in record.getMessage() for record in said) == 1
    assert listener.counters.drops == {"unknown module": 8 + 2 * UNKNOWN_MODULES_NAMED}


@pytest.mark.parametrize("error", [RuntimeError("out of pipes"), asyncio.CancelledError()])
def test_listener_callback_raising_is_logged_connection_stays(
    error: BaseException, listener: Listener, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(kind: int) -> None:
        if kind == 1:
            raise error

    bad, good = register(listener, Recorded(act=fail)), register(listener, Recorded())
    with serving(listener), peer(port) as connection:
        connection.sendall(frame(sender=2) * 50 + frame(kind=2, sender=2))
        bad.wait_for(2, 2)
        good.wait_for(2, 2)
    assert good.seen.count((1, 2)) == 50
    assert listener.counters.callback_errors == 50
    (record,) = [record for record in caplog.records if record.exc_info]
    assert "ratelimit" in record.getMessage()
    assert "127.0.0.2" in record.getMessage()


# -- bad peers -------------------------------------------------------------------------------


def test_bytes_that_are_not_bin_end_that_connection_only(
    listener: Listener, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    recorded = register(listener, Recorded())
    with serving(listener), peer(port) as good, peer(port, 3) as bad:
        bad.sendall(frame(sender=3) + b"GET / HTTP/1.1\r\n\r\n")
        assert ended(bad)
        recorded.wait_for(1, 3)
        good.sendall(frame(kind=2, sender=2))
        recorded.wait_for(2, 2)
    assert listener.counters.wire_errors == 1
    assert any("127.0.0.3" in line and "marker" in line for line in caplog.messages)


def test_listener_unfinished_frame_closes_connection(redis_url: str, port: int) -> None:
    with listener_of(redis_url, max_message_time=0.6) as listener:
        recorded = register(listener, Recorded())
        with serving(listener), peer(port) as dripping, peer(port) as silent:
            started = time.monotonic()
            with contextlib.suppress(ConnectionError):
                for byte in frame(sender=2, size=41):
                    dripping.sendall(bytes([byte]))
                    time.sleep(0.1)
            assert ended(dripping)
            assert 0.5 < time.monotonic() - started < 3 + LATE_S
            silent.sendall(frame(kind=2, sender=2))
            recorded.wait_for(2, 2)
        assert recorded.seen == [(2, 2)]
        assert listener.counters.connections_expired == 1


def test_listener_steady_traffic_in_mid_frame_is_no_timeout(redis_url: str, port: int) -> None:
    with listener_of(redis_url, max_message_time=0.6) as listener:
        recorded = register(listener, Recorded())
        data, half = frame(sender=2, size=41), 20
        with serving(listener), peer(port) as connection:
            connection.sendall(data[:half])
            for _ in range(30):
                connection.sendall(data[half:] + data[:half])
                time.sleep(0.05)
            recorded.wait_for(1, 2, 30)
        assert listener.counters.connections_expired == 0


def test_listener_idle_connection_is_closed_after_lifetime(redis_url: str, port: int) -> None:
    with listener_of(redis_url, connection_lifetime=1) as listener:
        with serving(listener), peer(port) as idle:
            started = time.monotonic()
            assert ended(idle)
            assert 0.9 < time.monotonic() - started < 3 + LATE_S
        assert listener.counters.connections_expired == 1


def test_listener_above_max_connections_refuses(
    redis_url: str, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    with listener_of(redis_url, max_connections=2) as listener:
        recorded = register(listener, Recorded())
        with serving(listener), peer(port) as first:
            with peer(port) as second:
                first.sendall(frame(sender=2))
                second.sendall(frame(kind=2, sender=2))
                recorded.wait_for(1, 2)
                recorded.wait_for(2, 2)
                with peer(port) as third:
                    assert ended(third)
            wait_until(lambda: listener.counters.connections_open == 1)
            with peer(port) as again:
                again.sendall(frame(kind=3, sender=2))
                recorded.wait_for(3, 2)
        assert listener.counters.connections_refused == 1
        assert any("max_connections (2)" in line for line in caplog.messages)


def test_listener_flood_leaves_others_their_turn(listener: Listener, port: int) -> None:
    recorded = register(listener, Recorded(), module="quiet")
    register(listener, lambda *args: None)  # type: ignore[arg-type]
    stop = threading.Event()

    def flood() -> None:
        data = frame(sender=2) * 5_000
        with peer(port, 3) as connection, contextlib.suppress(OSError):
            while not stop.is_set():
                connection.sendall(data)

    with serving(listener), peer(port) as connection:
        flooding = threading.Thread(target=flood)
        flooding.start()
        try:
            wait_until(lambda: listener.counters.packets > 5_000)
            for number in range(10):
                connection.sendall(frame(kind=number, module="quiet", sender=2))
                recorded.wait_for(number, 2)
        finally:
            stop.set()
            listener.stop()
            flooding.join()


def test_listener_zero_words_after_frame_are_skipped(listener: Listener, port: int) -> None:
    """2.2 sends a trailing empty string's length, and leaves it out of the frame's."""
    recorded = register(listener, Recorded())
    with serving(listener), peer(port) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for kind, zeros in enumerate((4, 8, 0, 4)):
            connection.sendall(frame(kind=kind, sender=2) + bytes(zeros))
            recorded.wait_for(kind, 2)
        connection.sendall(frame(kind=9, sender=2)[:30])
        connection.sendall(frame(kind=9, sender=2)[30:] + bytes(2))
        recorded.wait_for(9, 2)
        connection.sendall(bytes(2) + frame(kind=10, sender=2))
        recorded.wait_for(10, 2)
        wait_until(lambda: listener.counters.skipped_words == 5)
    assert [kind for kind, _ in recorded.seen] == [0, 1, 2, 3, 9, 10]
    assert listener.counters.wire_errors == 0


def test_listener_one_byte_a_second_is_closed_in_time(
    listener: Listener, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(listener), peer(port) as dripping:
        started = time.monotonic()
        with contextlib.suppress(ConnectionError):
            for byte in frame(sender=2)[:12]:
                dripping.sendall(bytes([byte]))
                dripping.settimeout(1.0)
                with contextlib.suppress(TimeoutError):
                    if ended(dripping):
                        break
        assert 3.9 < time.monotonic() - started < 6 + LATE_S
    assert any("did not end within 4 s" in line for line in caplog.messages)


def test_listener_end_of_peer_is_answered_at_once(listener: Listener, port: int) -> None:
    recorded = register(listener, Recorded())
    with serving(listener), peer(port) as connection:
        connection.sendall(frame(sender=2))
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(1)
        assert ended(connection)
        recorded.wait_for(1, 2)


# -- addresses -------------------------------------------------------------------------------


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


# -- start and stop --------------------------------------------------------------------------


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


def test_listener_address_is_bound_once_and_logged(
    listener: Listener, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "clusterer.listener")
    with serving(listener):
        time.sleep(3 * TICK_S)
    lines = [line for line in caplog.messages if "listen" in line]
    assert lines == [f"listening on 127.0.0.1 port {port}"]
    assert {vars(record).get("url") for record in caplog.records} == {f"bin:127.0.0.1:{port}"}


def test_listener_invented_machine_ids_use_bounded_memory(listener: Listener, port: int) -> None:
    recorded = register(listener, Recorded(), auth_check=False)
    with serving(listener), peer(port) as connection:
        connection.sendall(b"".join(frame(sender=number) for number in range(1, 2_001)))
        wait_until(lambda: len(recorded.calls) == 2_000)
        (receiving,) = listener._admission
        assert len(receiving._routes) <= 64
    assert [machine_id for _, machine_id in recorded.seen] == list(range(1, 2_001))
