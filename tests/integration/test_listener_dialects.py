"""Packets of OpenSIPS 3.x over real sockets: captured connections, both dialects at once."""

from __future__ import annotations

import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest
import redis

from clusterer.listener import Listener, ReceiveInfo
from clusterer.runtime.stop import StopFlag
from clusterer.services.admin.recording import Record
from clusterer.services.admin.tail import Tail
from clusterer.settings import Settings
from clusterer.store import keys
from clusterer.store.captures import CaptureStore
from clusterer.wire import FrameDecoder3, Packet, PacketBuilder3, Trailer
from clusterer.wire.layout3 import CONTROL, INTERNAL
from tests.support.frames import frame
from tests.support.listening import Recorded, ended, listener_of, peer, register, serving
from tests.support.ports import free_port
from tests.support.processes import EVENTUALLY_S, wait_until
from tests.support.seeding import make_node, put_node
from tests.support.vectors import opensips3_streams

CLUSTER = 3
REPL = "usrloc-contact-repl"


class Control:
    """Records the packets of the clusterer itself."""

    def __init__(self) -> None:
        self.last_seen: dict[int, float] = {}
        self.taken: list[Packet] = []

    def take(self, kind: int, info: ReceiveInfo, machine_id: int) -> None:
        assert (info.packet.type, info.packet.machine_id) == (kind, machine_id)
        self.taken.append(info.packet)


@pytest.fixture
def port3(port: int, redis_client: redis.Redis) -> int:
    """Port of node 1, which is also in cluster 3 of OpenSIPS 3.x nodes, with nodes 2 and 3."""
    for machine_id in (1, 2, 3):
        put_node(redis_client, make_node(machine_id, cluster_id=CLUSTER, port=port))
    return port


@pytest.fixture
def listener3(redis_url: str, port3: int) -> Iterator[Listener]:
    """The listener of node 1, which serves nothing yet."""
    with listener_of(redis_url, opensips_3_clusters=str(CLUSTER)) as made:
        yield made


def frame3(kind: int, *, sender: int = 2, to: int = 1, name: str = REPL, cluster: int = 3) -> bytes:
    packet = PacketBuilder3(name, kind, sender, cluster_id=cluster).push_str("x" * 100).build()
    trailer = Trailer(cluster, None if name == INTERNAL else to)
    return packet._replace(trailer=trailer).encode()


def test_dialect_captured_connections_arrive_whole(
    redis_url: str, redis_client: redis.Redis
) -> None:
    """The bytes that real nodes sent to node 21, sent again to an instance with its machine_id.

    Some are for node 23, which the sender did not reach: node 21 forwarded them.
    """
    port = free_port()
    for machine_id in (21, 22, 23, 24):
        put_node(redis_client, make_node(machine_id, port=port))
    control, recorded = Control(), Recorded()
    streams = [each for each in opensips3_streams() if each.receiver == 21]
    packets = [packet for each in streams for packet in FrameDecoder3().feed(each.data)]
    ours = [each for each in packets if each.trailer and each.trailer.destination in {None, 21}]
    modules = {packet.module for packet in packets} - CONTROL
    assert len(modules) > 2
    with listener_of(redis_url, 21, opensips_3_clusters="1") as listener:
        listener.control(1, control)
        for module in modules:
            register(listener, recorded, module=module)
        with serving(listener):
            for each in streams:
                with peer(port, each.sender, "127.0.0.21") as connection:
                    connection.sendall(each.data)
            wait_until(lambda: listener.counters.packets >= len(packets))
    got = [info.packet for _, info, _ in recorded.calls if info is not None] + control.taken
    assert Counter(got) == Counter(ours)
    assert 0 < len(ours) < len(packets)
    assert listener.counters.drops == {"other destination": len(packets) - len(ours)}
    assert listener.counters.wire_errors == 0


def test_dialect_connections_of_both_kinds_at_once(listener3: Listener, port3: int) -> None:
    new = register(listener3, Recorded(), module=REPL, cluster_id=CLUSTER)
    old = register(listener3, Recorded())
    with serving(listener3), peer(port3) as first, peer(port3) as second:
        for byte in frame3(5):
            first.sendall(bytes([byte]))
        second.sendall(frame(kind=6, sender=2) * 2)
        first.sendall(frame3(7, sender=3))
        new.wait_for(7, 3)
        old.wait_for(6, 2, 2)
        first.sendall(frame(kind=8, sender=2))
        assert ended(first), "a connection keeps its dialect"
    assert new.seen == [(5, 2), (7, 3)]
    assert old.seen == [(6, 2)] * 2
    assert listener3.counters.drops == {}


def test_dialect_3x_frames_without_setting_close_connection(
    listener: Listener, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(listener), peer(port) as connection:
        connection.sendall(frame3(5))
        assert ended(connection)
    assert "closed: a frame of OpenSIPS 2.3 or later, whose BIN differs from that of 2.2" in (
        caplog.text
    )


def test_dialect_drops_counted_by_reason(listener3: Listener, port3: int) -> None:
    recorded = register(listener3, Recorded(), module=REPL, cluster_id=CLUSTER)
    with serving(listener3), peer(port3) as connection:
        connection.sendall(
            frame3(1, to=3)
            + frame3(2, cluster=1)
            + frame3(3, sender=9)
            + frame3(4, sender=1)
            + frame3(5, name="other-repl")
            + frame3(-6)
            + frame3(7)
        )
        recorded.wait_for(7, 2)
        assert recorded.seen == [(7, 2)]
        wait_until(lambda: sum(listener3.counters.drops.values()) == 6)
    assert listener3.counters.drops == {
        "other destination": 1,
        "wrong dialect": 1,
        "unknown source": 2,
        "unknown module": 1,
        "negative type": 1,
    }


def test_dialect_unfinished_frame_closes_connection(redis_url: str, port3: int) -> None:
    three = str(CLUSTER)
    with listener_of(redis_url, opensips_3_clusters=three, max_message_time=1) as listener:
        recorded = register(listener, Recorded(), module=REPL, cluster_id=CLUSTER)
        with serving(listener), peer(port3) as connection:
            connection.sendall(frame3(5))
            recorded.wait_for(5, 2)
            connection.sendall(frame3(6)[:-1])
            assert ended(connection)
    assert listener.counters.closed == {"unfinished frame": 1}
    assert recorded.seen == [(5, 2)]


def test_dialect_slow_callback_loses_no_packet(listener3: Listener, port3: int) -> None:
    """Packets wait for a slow callback in their order, whatever their senders and trailers."""
    slow = Recorded(act=lambda kind: time.sleep(0.015) if kind % 50 == 0 else None)
    register(listener3, slow, module=REPL, cluster_id=CLUSTER)
    count = 2_000
    stream = b"".join(
        frame3(kind, sender=2 + kind // 3 % 2, to=1 + (kind % 7 == 0)) for kind in range(count)
    )
    with serving(listener3), peer(port3) as connection:
        connection.sendall(stream)
        wait_until(lambda: listener3.counters.packets == count)
    ours = [(kind, 2 + kind // 3 % 2) for kind in range(count) if kind % 7]
    assert slow.seen == ours
    assert listener3.counters.drops == {"other destination": count - len(ours)}


def test_dialect_last_seen_and_traffic_by_node(
    listener3: Listener, port3: int, redis_client: redis.Redis
) -> None:
    listener3.counters.weigh = True
    control = Control()
    listener3.control(CLUSTER, control)
    recorded = register(listener3, Recorded(), module=REPL, cluster_id=CLUSTER, timeout_s=60)
    with serving(listener3), peer(port3) as connection:
        connection.sendall(frame3(5, sender=3) * 3 + frame3(0, name=INTERNAL) * 2)
        recorded.wait_for(5, 3, 3)
        name = keys.last_seen(1, REPL, CLUSTER)
        wait_until(lambda: redis_client.zscore(name, 3) is not None)
        assert redis_client.zscore(name, 2) is None
        wait_until(lambda: len(control.taken) == 2)
    assert list(control.last_seen) == [3]
    received = {
        key: (each.packets, each.bytes) for key, each in listener3.counters.received.items()
    }
    assert received == {
        (REPL, 3): (3, 3 * len(frame3(5))),
        (INTERNAL, 2): (2, 2 * len(frame3(0, name=INTERNAL))),
    }


def test_dialect_capture_has_frames_as_received(
    listener3: Listener, port3: int, redis_url: str, redis_client: redis.Redis
) -> None:
    """Also frames that the listener drops, and those that name no cluster."""
    short = b"P4CK" + struct.pack("<IhH", 21, 1, 3) + b"pua" + struct.pack("<i", 9) + b"xy"
    frames = [frame3(5), frame3(1, to=9), short, frame3(0, name=INTERNAL), frame3(2, cluster=1)]
    store, stop = CaptureStore(Settings(redis_url=redis_url)), StopFlag()
    got: list[bytes] = []
    with serving(listener3), peer(port3) as connection:
        wait_until(lambda: redis_client.hexists(keys.modules(1), "heartbeat"))
        tail = Tail(store, 1)
        wait_until(lambda: listener3._capture.active)
        connection.sendall(b"".join(frames))
        giving_up = threading.Timer(EVENTUALLY_S, stop.set)
        giving_up.start()
        for arrivals in tail.arrivals(stop):
            got += [each.packet.encode() for each in arrivals if isinstance(each, Record)]
            if len(got) >= len(frames):
                break
        giving_up.cancel()
    store.close()
    stop.close()
    assert got == frames
