"""One capture of an instance, shared by all viewers of the console."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from clusterer.errors import ClustererError
from clusterer.listener import Listener
from clusterer.services.admin import shared_tail
from clusterer.services.admin.packets import PacketFilter
from clusterer.services.admin.recording import Recording, as_text
from clusterer.services.admin.shared_tail import Captures, SharedTails
from clusterer.settings import Settings
from clusterer.store import keys
from clusterer.store.captures import CaptureStore
from tests.support.frames import frame
from tests.support.listening import peer, serving
from tests.support.processes import wait_until

ALL = PacketFilter()
SOON_S = 20


@pytest.fixture
def made() -> list[CaptureStore]:
    """Every store that a capture got."""
    return []


@pytest.fixture
def tails(redis_url: str, made: list[CaptureStore]) -> Iterator[SharedTails]:
    def store() -> CaptureStore:
        made.append(CaptureStore(Settings(redis_url=redis_url)))
        return made[-1]

    with contextlib.closing(SharedTails(store)) as shared:
        yield shared


@contextlib.contextmanager
def captured(listener: Listener, tails: SharedTails, client: redis.Redis) -> Iterator[None]:
    """Serve, and view until the instance captures."""
    with serving(listener):
        wait_until(lambda: client.hexists(keys.modules(1), "heartbeat"), SOON_S)
        tails.view(1, ALL)
        wait_until(lambda: listener._capture.active, SOON_S)
        yield


def numbers(view: Captures) -> list[int]:
    return [each.number for each in view.packets]


def test_viewers_share_one_capture_with_filters(
    listener: Listener,
    port: int,
    tails: SharedTails,
    made: list[CaptureStore],
    redis_client: redis.Redis,
) -> None:
    with captured(listener, tails, redis_client), peer(port) as connection:
        connection.sendall(
            frame(kind=5, sender=2)
            + frame(kind=6, sender=3)
            + frame(kind=7, sender=2, module="other")
        )
        wait_until(lambda: tails.view(1, ALL).seen == 3, SOON_S)
        assert numbers(tails.view(1, ALL)) == [1, 2, 3]
        assert numbers(tails.view(1, PacketFilter(nodes=[2]))) == [1, 3]
        assert numbers(tails.view(1, PacketFilter(modules=["other"]))) == [3]
        assert numbers(tails.view(1, PacketFilter(types=[6, 7]))) == [2, 3]
        paused = tails.view(1, ALL, last=1, until=2)
        assert (numbers(paused), paused.selected, paused.kept, paused.seen) == ([2], 2, 3, 3)
    assert len(made) == 1


def test_captured_packets_are_a_recording(
    listener: Listener, port: int, tails: SharedTails, redis_client: redis.Redis, tmp_path: Path
) -> None:
    with captured(listener, tails, redis_client), peer(port) as connection:
        connection.sendall(frame(kind=5, sender=2) * 3)
        wait_until(lambda: tails.view(1, ALL).seen == 3, SOON_S)
        records = [each.record for each in tails.view(1, ALL).packets]
    path = tmp_path / "recording"
    path.write_text("".join(as_text(records)), encoding="utf-8")
    assert list(Recording(path)) == records
    assert [record.packet.type for record in records] == [5, 5, 5]


def test_capture_ends_without_viewers_and_starts_again(
    listener: Listener,
    tails: SharedTails,
    made: list[CaptureStore],
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shared_tail, "IDLE_S", 1.0)
    with captured(listener, tails, redis_client):
        threads = capture_threads()
        assert len(threads) == 1
        wait_until(lambda: not capture_threads(), SOON_S, "the end of the capture")
        wait_until(lambda: not listener._capture.active, SOON_S, "an instance that copies nothing")
        tails.view(1, ALL, until=9)
        assert len(made) == 1, "a viewer that has paused starts no capture"
        tails.view(1, ALL)
        assert len(made) == 2


def test_paused_viewer_keeps_its_packets(
    listener: Listener,
    port: int,
    tails: SharedTails,
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Numbers go on in the next capture, so that a paused page never shows other packets."""
    monkeypatch.setattr(shared_tail, "IDLE_S", 1.0)
    with captured(listener, tails, redis_client), peer(port) as connection:
        connection.sendall(frame(kind=5, sender=2) * 3)
        wait_until(lambda: tails.view(1, ALL).seen == 3, SOON_S)
        wait_until(lambda: not capture_threads(), SOON_S, "the end of the capture")
        assert numbers(tails.view(1, ALL, until=2)) == [1, 2]
        assert tails.view(1, ALL).packets == ()
        wait_until(lambda: listener._capture.active, SOON_S)
        connection.sendall(frame(kind=6, sender=2))
        wait_until(lambda: numbers(tails.view(1, ALL)) == [4], SOON_S)
        assert numbers(tails.view(1, ALL, until=2)) == []


def capture_threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name.startswith("capture-")]


def test_buffer_keeps_the_newest_packets(
    listener: Listener,
    port: int,
    tails: SharedTails,
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shared_tail, "KEPT", 20)
    monkeypatch.setattr(shared_tail, "KEPT_BYTES", 10_000)
    with captured(listener, tails, redis_client), peer(port) as connection:
        connection.sendall(frame(kind=5, sender=2) * 50)
        wait_until(lambda: tails.view(1, ALL).seen == 50, SOON_S)
        assert numbers(tails.view(1, ALL)) == list(range(31, 51))
        connection.sendall(frame(kind=6, sender=2, size=9_000) * 3)
        wait_until(lambda: tails.view(1, ALL).seen == 53, SOON_S)
        assert numbers(tails.view(1, ALL)) == [53]


def test_unknown_instance_is_named(tails: SharedTails) -> None:
    with pytest.raises(ClustererError, match=r"instance 7 does not receive: start"):
        tails.view(7, ALL)


def test_captures_at_once_are_bounded(
    tails: SharedTails, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_tail, "MOST_CAPTURES", 2)
    for receiver in (1, 2, 3):
        redis_client.hset(keys.modules(receiver), mapping={"run": "x", "heartbeat": "1"})
    for receiver in (1, 2):
        assert "not running" in tails.view(receiver, ALL).trouble
    with pytest.raises(ClustererError, match="instances 1, 2 are captured: no more than 2"):
        tails.view(3, ALL)
