"""A real node's traffic replayed to an instance with all modules: every frame is accounted for."""

from __future__ import annotations

import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis

from clusterer import Clusterer, Settings
from clusterer.cli import main
from clusterer.modules.dialog import Dialogs
from clusterer.modules.ratelimit import RateLimit
from clusterer.modules.usrloc import Usrloc
from clusterer.payloads import decode
from clusterer.services.admin.recording import Record, Recorder
from tests.support.cluster import load, node
from tests.support.listening import ended, peer
from tests.support.observing import CAPTURED_AT, captured_packets
from tests.support.ports import free_port
from tests.support.processes import EVENTUALLY_S, wait_until
from tests.support.vectors import captured_stream

FRAMES = {"ratelimit": 189, "dialog": 198, "ul": 5}

STORY = [
    *[("contact", "added"), ("contact", "updated"), ("contact", "removed")],
    *[("call 1", "added"), ("inbound", 1), ("caller", 1)],
    *[("call 2", "added"), ("call 2", "updated"), ("inbound", 2), ("caller", 2)],
    *[("call 3", "added"), ("call 3", "updated"), ("inbound", 3), ("caller", 3)],
    *[("call 1", "removed"), ("inbound", 2), ("caller", 2)],
    *[("call 2", "removed"), ("inbound", 1), ("caller", 1)],
    *[("call 3", "removed"), ("caller", 0), ("inbound", 0)],
]
"""The contents of the capture in order: one phone registers, three calls begin and end."""


@dataclass
class Receiver:
    """Node 2 with all three modules, at the time of the capture; node 1 is 127.0.0.1."""

    instance: Clusterer
    dialogs: Dialogs
    usrloc: Usrloc
    limits: RateLimit
    port: int
    story: list[tuple[str, object]] = field(default_factory=list)

    def saw(self, frames: int) -> bool:
        return self.instance.listener.counters.packets == frames

    def received(self) -> Counter[str]:
        tallies = self.instance.listener.counters.received.items()
        return Counter({module: tally.packets for (module, machine), tally in tallies})


@pytest.fixture
def receiver(redis_client: redis.Redis, redis_url: str) -> Iterator[Receiver]:
    settings = Settings(redis_url=redis_url)
    port = free_port()
    load(settings, [node(1, free_port()), node(2, port)])
    instance = Clusterer(2, settings=settings)
    made = Receiver(
        instance,
        Dialogs(instance, 1, profiles_timeout=0, unix_clock=lambda: CAPTURED_AT),
        Usrloc(instance, 1, unix_clock=lambda: CAPTURED_AT),
        RateLimit(instance, accept_pipes_from=1, auth_check=True),
        port,
    )
    tell = made.story.append
    made.dialogs.on_call(lambda it: tell((f"call {it.value.call_id[0]}", it.kind)))
    made.dialogs.on_profile(lambda it: tell((it.value.profile, it.new.calls if it.new else 0)))
    made.usrloc.on_contact(lambda it: tell(("contact", it.kind)))
    with instance, made.dialogs, made.usrloc, made.limits, served(instance):
        yield made


@contextmanager
def served(instance: Clusterer) -> Iterator[None]:
    thread = threading.Thread(target=instance.serve, name="serve 2")
    thread.start()
    try:
        assert instance.listener.ready.wait(EVENTUALLY_S)
        yield
    finally:
        instance.stop()
        thread.join(EVENTUALLY_S)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """The captured stream as `clusterer tail` would have recorded it."""
    path = tmp_path / "capture.rec"
    with Recorder(path) as recorder:
        for packet in captured_packets():
            recorder.add(Record(CAPTURED_AT, 2, ("127.0.0.1", 40_000), packet))
    return path


def replay(recording: Path, receiver: Receiver, source: str) -> None:
    to = f"127.0.0.1:{receiver.port}"
    assert main(["replay", str(recording), "--to", to, "--bind", source, "--speed", "max"]) == 0


def test_mixed_cluster_capture_round_trips() -> None:
    again = b""
    for packet in captured_packets():
        message = decode(packet)
        assert message is not None
        again += message.encode(1).encode()
    assert again == captured_stream()[0]


def test_mixed_cluster_replayed_frames_are_all_counted(receiver: Receiver, recording: Path) -> None:
    stream, frames = captured_stream()
    replay(recording, receiver, "127.0.0.1")
    counters = receiver.instance.listener.counters
    assert (counters.packets, counters.bytes) == (frames, len(stream))
    assert receiver.received() == FRAMES
    assert counters.others.packets == 0
    assert not counters.drops
    assert not counters.wire_errors
    assert not counters.callback_errors
    assert receiver.story == STORY
    assert receiver.dialogs.calls() == []
    assert receiver.dialogs.profiles() == {}
    assert receiver.usrloc.contacts() == []
    assert receiver.limits.stats.packets_received == FRAMES["ratelimit"]
    assert receiver.limits.pipes()["calls"].limit == 100


def test_mixed_cluster_frames_from_other_address_are_dropped(
    receiver: Receiver, recording: Path
) -> None:
    frames = captured_stream()[1]
    replay(recording, receiver, "127.0.0.2")
    counters = receiver.instance.listener.counters
    assert counters.packets == counters.others.packets == frames
    assert counters.drops == {"unknown source": frames}
    assert receiver.story == []
    assert receiver.limits.pipes() == {}


@pytest.mark.parametrize("reset", [False, True], ids=["its kernel closes", "it vanishes"])
def test_mixed_cluster_node_restarted_in_frame_gets_next(receiver: Receiver, reset: bool) -> None:
    stream, frames = captured_stream()
    ends = [0]
    for packet in captured_packets():
        ends.append(ends[-1] + len(packet.encode()))
    call_3 = 348  # frame, counted from 0, with which call 3 begins
    with peer(receiver.port, machine_id=1) as connection:
        connection.sendall(stream[: ends[call_3] + 30])
        wait_until(lambda: receiver.saw(call_3), message="the frames before the restart")
        if reset:
            linger = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    with peer(receiver.port, machine_id=1) as connection:
        connection.sendall(stream[ends[call_3] :])
        connection.shutdown(socket.SHUT_WR)
        assert ended(connection)
    assert receiver.saw(frames)
    assert receiver.received() == FRAMES
    assert receiver.instance.listener.counters.wire_errors == 0
    assert receiver.story == STORY
