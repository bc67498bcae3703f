"""Callbacks that take long, wait, or want a thread, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time

import pytest

from clusterer import in_thread
from clusterer.ids import SERVER_TIMEOUT
from clusterer.listener import Listener, ReceiveInfo
from clusterer.services import Context
from clusterer.services.periodic import timeouts
from clusterer.settings import Settings
from tests.support.frames import frame
from tests.support.listening import Recorded, listener_of, peer, serving
from tests.support.processes import EVENTUALLY_S, LATE_S, rounds, wait_until


def register(
    listener: Listener, callback: object, module: str = "ratelimit", timeout_s: float = 0
) -> None:
    listener.register(
        module,
        callback,  # type: ignore[arg-type]
        timeout_s=timeout_s,
        auth_check=True,
        cluster_id=1,
    )


def slowest_answer_s(connection: object, recorded: Recorded, rounds: int = 10) -> float:
    """Send packets of module "quick" one by one; return the longest time one took."""
    worst = 0.0
    for number in range(rounds):
        began = time.monotonic()
        connection.sendall(frame(kind=number, sender=3, module="quick"))  # type: ignore[attr-defined]
        recorded.wait_for(number, 3)
        worst = max(worst, time.monotonic() - began)
    return worst


def test_callbacks_slow_delays_others_by_its_own_time_only(listener: Listener, port: int) -> None:
    slow, quick = Recorded(act=lambda kind: time.sleep(0.02)), Recorded()
    register(listener, slow)
    register(listener, quick, "quick")
    with serving(listener), peer(port) as busy, peer(port, 3) as other:
        busy.sendall(frame(sender=2) * 1500)  # thirty seconds of work
        wait_until(lambda: len(slow.calls) >= 1)
        assert slowest_answer_s(other, quick) < 3 + LATE_S
        assert len(slow.calls) < 1500


def test_callbacks_slow_keeps_packets_whole_and_in_order(listener: Listener, port: int) -> None:
    recorded = Recorded(act=lambda kind: time.sleep(0.012) if kind % 10 == 0 else None)
    register(listener, recorded)
    with serving(listener), peer(port) as connection:
        connection.sendall(
            b"".join(frame(kind=kind, sender=2) for kind in range(500)) + b"no marker"
        )
        wait_until(lambda: listener.counters.wire_errors == 1)
    assert [kind for kind, _ in recorded.seen] == list(range(500))
    assert listener.counters.packets == 500


def test_callbacks_coroutine_is_awaited_while_others_are_read(
    listener: Listener, port: int
) -> None:
    done: list[int] = []
    quick = Recorded()

    async def slow(kind: int, info: ReceiveInfo | None, machine_id: int) -> None:
        await asyncio.sleep(0.02)
        done.append(kind)

    register(listener, slow)
    register(listener, quick, "quick")
    with serving(listener), peer(port) as busy, peer(port, 3) as other:
        busy.sendall(b"".join(frame(kind=kind, sender=2) for kind in range(500)))
        assert slowest_answer_s(other, quick) < 3 + LATE_S
        wait_until(lambda: len(done) == 500)
    assert done == list(range(500))


def test_callbacks_blocking_in_thread_delays_no_other(
    listener: Listener, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    release, quick = threading.Event(), Recorded()
    done: list[int] = []

    @in_thread(queue_size=100)
    def blocking(kind: int, info: ReceiveInfo | None, machine_id: int) -> None:
        release.wait(EVENTUALLY_S)
        done.append(kind)

    register(listener, blocking)
    register(listener, quick, "quick")
    with serving(listener), peer(port) as busy, peer(port, 3) as other:
        busy.sendall(b"".join(frame(kind=kind, sender=2) for kind in range(300)))
        assert slowest_answer_s(other, quick) < 3 + LATE_S
        wait_until(lambda: listener.counters.packets >= 300)
        dropped = listener.counters.drops["callback queue full"]
        assert 198 <= dropped <= 200
        release.set()
        wait_until(lambda: len(done) == 300 - dropped)
    assert done == list(range(300 - dropped))
    lines = [line for line in caplog.messages if "callback queue full" in line]
    assert len(lines) == 1
    assert "ratelimit" in lines[0]


def test_notices_of_timeouts_come_to_coroutines_and_threads(
    listener: Listener, port: int, redis_url: str
) -> None:
    recorded, awaited = Recorded(), Recorded()

    async def waiting(kind: int, info: ReceiveInfo | None, machine_id: int) -> None:
        awaited(kind, info, machine_id)

    register(listener, in_thread(recorded), timeout_s=0.5)
    register(listener, waiting, timeout_s=0.5)
    context = Context(Settings(redis_url=redis_url))

    def noticed() -> bool:
        timeouts.run(context)
        return (SERVER_TIMEOUT, 2) in recorded.seen and (SERVER_TIMEOUT, 2) in awaited.seen

    with serving(listener), contextlib.closing(context), peer(port) as connection:
        connection.sendall(frame(kind=4, sender=2))
        wait_until(noticed)


def test_stopping_does_what_was_received_first(listener: Listener, port: int) -> None:
    done: list[int] = []
    threaded = Recorded(act=lambda kind: time.sleep(0.005))

    async def waiting(kind: int, info: ReceiveInfo | None, machine_id: int) -> None:
        await asyncio.sleep(0.005)
        done.append(kind)

    register(listener, waiting)
    register(listener, in_thread(threaded))
    with serving(listener), peer(port) as connection:
        connection.sendall(b"".join(frame(kind=kind, sender=2) for kind in range(100)))
        wait_until(lambda: listener.counters.packets == 100)
    assert done == list(range(100))
    assert [kind for kind, _ in threaded.seen] == list(range(100))


def test_callbacks_endless_delay_of_stop_is_bounded(
    listener: Listener, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    release, entered = threading.Event(), threading.Event()

    @in_thread
    def stuck(kind: int, info: ReceiveInfo | None, machine_id: int) -> None:
        entered.set()
        release.wait(EVENTUALLY_S)

    register(listener, stuck)
    began = 0.0
    try:
        with serving(listener), peer(port) as connection:
            connection.sendall(frame(sender=2) * 10)
            assert entered.wait(EVENTUALLY_S)
            wait_until(lambda: listener.counters.packets == 10)
            began = time.monotonic()
        assert time.monotonic() - began < 4 + LATE_S
    finally:
        release.set()
    assert listener.counters.drops["stopped"] == 9
    assert any("stopped" in line and "ratelimit" in line for line in caplog.messages)


@pytest.mark.slow
def test_callbacks_slow_flood_times_out_no_active_node(
    redis_url: str, listener: Listener, port: int
) -> None:
    recorded = Recorded(act=lambda kind: time.sleep(0.02) if kind == 1 else None)
    register(listener, recorded, timeout_s=4.0)
    context = Context(Settings(redis_url=redis_url))
    with serving(listener), peer(port) as busy, peer(port, 3) as other, contextlib.closing(context):
        busy.sendall(frame(sender=2) * 500 + frame(kind=2, sender=2))
        for _ in rounds(9, 0.1):
            other.sendall(frame(kind=0, sender=3))
            timeouts.run(context)
    assert SERVER_TIMEOUT not in {kind for kind, _ in recorded.seen}


@pytest.mark.slow
def test_callbacks_queued_packet_counts_from_its_arrival(
    redis_url: str, listener: Listener, port: int
) -> None:
    """Five seconds of work are before the packet, which arrives five seconds after the start."""
    recorded = Recorded(act=lambda kind: time.sleep(0.25) if kind == 1 else None)
    listener.register("ratelimit", recorded, timeout_s=8.0, auth_check=False, cluster_id=1)
    context = Context(Settings(redis_url=redis_url))
    with serving(listener), peer(port) as busy, contextlib.closing(context):
        time.sleep(5)
        busy.sendall(frame(sender=2) * 20 + frame(kind=2, sender=3))

        def arrived() -> bool:
            timeouts.run(context)
            return (2, 3) in recorded.seen or (SERVER_TIMEOUT, 3) in recorded.seen

        wait_until(arrived)
    assert (SERVER_TIMEOUT, 3) not in recorded.seen


@pytest.mark.parametrize("waiting", [2, 3], ids=["same connection", "another connection"])
def test_callbacks_slow_behind_partial_frame_is_no_timeout(
    redis_url: str, port: int, waiting: int
) -> None:
    """The bytes arrived long ago: the callback kept the listener from reading them."""
    entered = threading.Event()

    def slow(kind: int) -> None:
        if kind == 1:
            entered.set()
            time.sleep(0.8)

    with listener_of(redis_url, max_message_time=0.5) as listener:
        recorded = Recorded(act=slow)
        register(listener, recorded)
        with serving(listener), peer(port) as busy, peer(port, 3) as other:
            cut = busy if waiting == 2 else other
            for number in range(2, 5):
                begin, end = (
                    frame(kind=number, sender=waiting)[:20],
                    frame(kind=number, sender=waiting)[20:],
                )
                entered.clear()
                if cut is other:
                    seen = listener.counters.bytes
                    other.sendall(begin)
                    wait_until(lambda seen=seen: listener.counters.bytes > seen)  # type: ignore[misc]
                busy.sendall(frame(sender=2) + (begin if cut is busy else b""))
                assert entered.wait(EVENTUALLY_S)
                cut.sendall(end)
                recorded.wait_for(number, waiting)
        assert listener.counters.connections_expired == 0


def test_callbacks_blocking_mutes_no_node(redis_url: str, listener: Listener, port: int) -> None:
    """Longer than the timeout, and shorter than the gap after which all clocks restart."""
    recorded = Recorded(act=lambda kind: time.sleep(1.5) if kind == 1 else None)
    register(listener, recorded, timeout_s=1.2)
    context = Context(Settings(redis_url=redis_url))
    with serving(listener), peer(port, 3) as other, peer(port) as busy, contextlib.closing(context):
        for turn, _ in enumerate(rounds(6, 0.03), 1):
            busy.sendall(frame(kind=1 if turn % 50 == 10 else 0, sender=2))
            other.sendall(frame(kind=0, sender=3))
            timeouts.run(context)
    assert recorded.seen.count((1, 2)) >= 2
    assert SERVER_TIMEOUT not in {kind for kind, _ in recorded.seen}


def test_callbacks_slow_pauses_the_frame_timeout(redis_url: str, port: int) -> None:
    """The peer may not have been able to send the rest before."""
    left = threading.Event()

    def slow(kind: int) -> None:
        if kind == 1:
            time.sleep(1.5)
            left.set()

    with listener_of(redis_url, max_message_time=1.0) as listener:
        recorded = Recorded(act=slow)
        register(listener, recorded)
        with serving(listener), peer(port) as connection:
            connection.sendall(frame(sender=2) + frame(kind=2, sender=2)[:20])
            assert left.wait(EVENTUALLY_S)
            time.sleep(0.4)
            connection.sendall(frame(kind=2, sender=2)[20:])
            recorded.wait_for(2, 2)
