"""The listener over real sockets and a real Redis: which callback gets which packet."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct

import pytest
import redis

from clusterer.listener import Listener
from clusterer.listener.drops import UNKNOWN_MODULES_NAMED
from clusterer.wire import PacketBuilder
from tests.support.frames import frame
from tests.support.listening import Recorded, peer, register, send_until, serving
from tests.support.processes import wait_until
from tests.support.seeding import make_node, put_node


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
