"""Peers of the listener that send what is no packet, too much, too slowly, or nothing."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest

from clusterer.listener import Listener
from tests.support.frames import frame
from tests.support.listening import Recorded, ended, listener_of, peer, register, serving
from tests.support.processes import EVENTUALLY_S, LATE_S, wait_until


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


def test_listener_unknown_addresses_that_flood_have_short_turns(
    listener: Listener, port: int
) -> None:
    """Their packets wait to be read when a node's packet arrives: all have a turn before it."""
    entered, go_on, before = threading.Event(), threading.Event(), list[int]()
    data = frame(sender=2)

    def act(kind: int) -> None:
        if kind == 1:
            entered.set()
            go_on.wait(EVENTUALLY_S)
        else:
            before.append(listener.counters.packets)

    recorded = register(listener, Recorded(act=act))
    with serving(listener), contextlib.ExitStack() as stack:
        node, slow, *others = (stack.enter_context(peer(port, n)) for n in (2, 3, *range(10, 30)))
        wait_until(lambda: listener.counters.connections_open == 22)
        slow.sendall(frame(sender=3))
        assert entered.wait(EVENTUALLY_S)
        for other in others:
            other.sendall(data * (65_536 // len(data)))
        node.sendall(frame(kind=2, sender=2))
        go_on.set()
        recorded.wait_for(2, 2)
    most_in_two_turns = 20 * 2 * (4096 // len(data) + 1)
    assert before[0] < most_in_two_turns


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


def test_listener_invented_machine_ids_use_bounded_memory(listener: Listener, port: int) -> None:
    recorded = register(listener, Recorded(), auth_check=False)
    with serving(listener), peer(port) as connection:
        connection.sendall(b"".join(frame(sender=number) for number in range(1, 2_001)))
        wait_until(lambda: len(recorded.calls) == 2_000)
        (receiving,) = listener._admission
        assert len(receiving._routes) <= 64
    assert [machine_id for _, machine_id in recorded.seen] == list(range(1, 2_001))
