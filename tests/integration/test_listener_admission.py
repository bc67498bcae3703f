"""Connections that hold places without a right to them, over real sockets."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from clusterer.listener import Listener
from tests.support.frames import frame
from tests.support.listening import Recorded, ended, listener_of, peer, serving
from tests.support.processes import LATE_S, spawn, wait_until

STRANGERS = (9, 10, 11, 12, 13)


@contextlib.contextmanager
def listening(redis_url: str, **settings: int) -> Iterator[tuple[Listener, Recorded]]:
    with listener_of(redis_url, **settings) as listener:
        recorded = Recorded()
        listener.register("ratelimit", recorded, timeout_s=0, auth_check=True, cluster_id=1)
        with serving(listener):
            yield listener, recorded


def held(stack: ExitStack, port: int, count: int, *sources: int) -> list[socket.socket]:
    """Open ``count`` connections from each of the addresses 127.0.0.<source>."""
    return [stack.enter_context(peer(port, source)) for source in sources for _ in range(count)]


def closed_of(listener: Listener, reason: str) -> int:
    return listener.counters.closed[reason]


@pytest.mark.parametrize(
    "last_words", [b"", b"P4CK", frame(kind=0, sender=2)[:-1]], ids=["", "mark", "half"]
)
@pytest.mark.parametrize("sources", [STRANGERS[:1], STRANGERS, (3,)], ids=["one", "many", "node"])
def test_silent_connections_leave_node_its_place(
    redis_url: str, port: int, sources: tuple[int, ...], last_words: bytes
) -> None:
    """However many there are, and even from another node's address."""
    places = {"max_connections": 40, "max_message_time": 60}
    with listening(redis_url, **places) as (listener, recorded), ExitStack() as stack:
        for silent in held(stack, port, 60 // len(sources), *sources):
            with contextlib.suppress(ConnectionError):
                silent.sendall(last_words)
        counters = listener.counters
        wait_until(lambda: counters.connections_accepted + counters.connections_refused == 60)
        for kind in range(10):
            with peer(port) as node:
                node.sendall(frame(kind=kind, sender=2))
                recorded.wait_for(kind, 2)
        assert counters.connections_open <= 40


def test_silent_connection_is_closed_within_message_time(redis_url: str, port: int) -> None:
    with listening(redis_url, max_message_time=1) as (listener, _), peer(port, 9) as silent:
        began = time.monotonic()
        assert ended(silent)
        assert 0.9 < time.monotonic() - began < 4 + LATE_S
        assert closed_of(listener, "no frame") == listener.counters.connections_expired == 1


def test_slow_drip_is_closed_within_message_time(redis_url: str, port: int) -> None:
    """A byte now and then is no frame, before the first one and after it."""
    with (
        listening(redis_url, max_message_time=1) as (listener, recorded),
        peer(port, 9) as new,
        peer(port, 2) as old,
    ):
        old.sendall(frame(sender=2))
        recorded.wait_for(1, 2)
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):
            for byte in frame(kind=2, sender=2, size=41):
                for dripping in (new, old):
                    dripping.sendall(bytes([byte]))
                time.sleep(0.1)
        assert ended(new)
        assert ended(old)
        assert time.monotonic() - began < 5 + LATE_S
        assert listener.counters.connections_expired == 2
        assert recorded.seen == [(1, 2)]


def test_node_between_frames_may_be_silent(redis_url: str, port: int) -> None:
    """OpenSIPS 2.2 keeps its connection for the next packet."""
    with listening(redis_url, max_message_time=1) as (listener, recorded), peer(port) as node:
        node.sendall(frame(sender=2))
        recorded.wait_for(1, 2)
        time.sleep(2.5)
        node.sendall(frame(kind=2, sender=2))
        recorded.wait_for(2, 2)
        assert listener.counters.connections_accepted == 1
        assert listener.counters.connections_expired == 0


def test_frame_then_silence_holds_no_node_up(redis_url: str, port: int) -> None:
    with listening(redis_url, max_connections=20) as (listener, recorded), ExitStack() as stack:
        for stranger in held(stack, port, 5, *STRANGERS):
            with contextlib.suppress(ConnectionError):
                stranger.sendall(frame(kind=0, sender=2))
        wait_until(lambda: listener.counters.connections_open == 20)
        wait_until(lambda: listener.counters.packets >= 20)
        with peer(port) as node:
            node.sendall(frame(sender=2))
            recorded.wait_for(1, 2)
        assert closed_of(listener, "displaced") == 1


def test_refusals_are_logged_once_and_counted(
    redis_url: str, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    bounds = {"max_connections": 100, "max_connections_per_address": 3}
    with listening(redis_url, **bounds) as (listener, _), ExitStack() as stack:
        held(stack, port, 50, 9)
        wait_until(lambda: closed_of(listener, "max_connections_per_address") == 47)
    lines = [line for line in caplog.messages if ": refused: " in line]
    assert len(lines) == 1
    assert lines[0].startswith("connection 127.0.0.9:")
    assert "max_connections_per_address (3) are open" in lines[0]


_CROWDED = """
import os, resource, sys, threading
url, held, limit = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
files = [os.open("/dev/null", os.O_RDONLY) for _ in range(held)]
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
import logging
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
from clusterer import Clusterer
instance = Clusterer(server_id=1, redis_url=url)
def got(kind, *more):
    print("got", kind, flush=True)
instance.register_module("ratelimit", "bin", got, 0, 1, 1)
instance.serve()
"""


@pytest.mark.parametrize(("held_files", "limit"), [(0, 90), (150, 220)], ids=["few", "none left"])
def test_listener_short_of_descriptors_serves_nodes(
    redis_url: str, port: int, held_files: int, limit: int
) -> None:
    with (
        spawn(["-c", _CROWDED, redis_url, str(held_files), str(limit)]) as instance,
        ExitStack() as stack,
    ):
        instance.wait_for_output("listening on")
        held(stack, port, 40, *STRANGERS)
        for kind in range(1, 4):
            with peer(port) as node:
                node.sendall(frame(kind=kind, sender=2))
                instance.wait_for_output(f"got {kind}")
        open_files = len(list(Path(f"/proc/{instance.pid}/fd").iterdir()))
        assert open_files < limit - 10, "others find descriptors"
        assert ("may not open another file" in instance.output()) == bool(held_files)
        assert "Traceback" not in instance.output()
