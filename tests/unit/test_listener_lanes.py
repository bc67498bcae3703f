"""Callbacks that wait: order, bounds, faults and the end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any

import pytest

from clusterer import in_thread
from clusterer.errors import InvalidArgument
from clusterer.ids import SERVER_TIMEOUT
from clusterer.listener.callback_queues import AsyncLane, InThread, Lane, ThreadLane, lane_of
from clusterer.listener.registrations import ReceiveInfo
from clusterer.wire import Packet

INFO = ReceiveInfo(("127.0.0.2", 1), Packet("ul", 1, 2))
LARGE = ReceiveInfo(("127.0.0.2", 1), Packet("ul", 1, 2, bytes(30_000)))
"""A packet of which two fit into `BYTES`."""
BYTES = 65_535


class Troubles:
    """Remembers what lanes tell."""

    def __init__(self) -> None:
        self.failed: list[str] = []
        self.left: list[tuple[str, int]] = []

    def callback_failed(
        self, error: Exception, module: str, call: object, source: object, machine_id: int
    ) -> None:
        self.failed.append(f"{module} {error} {source}")

    def packets_left(self, reason: str, module: str, call: object, count: int) -> None:
        if count:
            self.left.append((reason, count))


def run(make: Callable[[], Lane], use: Callable[[Lane], Any], *, within_s: float = 5) -> None:
    """Run a lane in a loop, use it there, and end it."""

    async def scene() -> None:
        lane = make()
        result = use(lane)
        if result is not None:
            await result
        await lane.finish(monotonic() + within_s)

    asyncio.run(scene())


def sending(*kinds: int) -> Callable[[Lane], None]:
    """Return what queues packets of these types from machine 2."""

    def use(lane: Lane) -> None:
        for kind in kinds:
            lane(kind, INFO, 2)

    return use


def test_callback_queue_plain_function_needs_none() -> None:
    assert lane_of("ul", print, Troubles()) is None


class AsyncCallable:
    async def __call__(self, kind: int, info: object, machine_id: int) -> None: ...


def test_callback_queue_is_found_for_every_waiting_kind() -> None:
    async def callback(kind: int, info: object, machine_id: int) -> None: ...

    assert isinstance(lane_of("ul", callback, Troubles()), AsyncLane)
    assert isinstance(lane_of("ul", AsyncCallable(), Troubles()), AsyncLane)
    assert isinstance(lane_of("ul", in_thread(print), Troubles()), ThreadLane)


def test_in_thread_decorates_with_and_without_arguments() -> None:
    @in_thread
    def one(kind: int, info: object, machine_id: int) -> int:
        return kind

    @in_thread(queue_size=5)
    def other(kind: int, info: object, machine_id: int) -> int:
        return kind

    assert isinstance(one, InThread)
    assert (one.queue_size, other.queue_size) == (10_000, 5)
    assert one(7, None, 2) == 7, "it can be called like the function itself"


@pytest.mark.parametrize("callback", [AsyncCallable(), "print"])
def test_in_thread_takes_plain_functions_only(callback: Any) -> None:
    with pytest.raises(InvalidArgument, match="plain function"):
        in_thread(callback)


@pytest.mark.parametrize("size", [0, -1, 1.5, True])
def test_in_thread_needs_room_in_its_queue(size: Any) -> None:
    with pytest.raises(InvalidArgument, match="queue_size"):
        in_thread(print, queue_size=size)


@pytest.mark.parametrize("size", [0, 65_534, 1e6, True])
def test_in_thread_has_room_for_the_largest_packet(size: Any) -> None:
    with pytest.raises(InvalidArgument, match="queue_bytes"):
        in_thread(print, queue_bytes=size)


def test_callback_queue_awaits_each_node_in_order() -> None:
    done: list[tuple[int, int]] = []
    release = asyncio.Event()

    async def callback(kind: int, info: object, machine_id: int) -> None:
        if machine_id == 2:
            await release.wait()
        else:
            await asyncio.sleep(0)
        done.append((machine_id, kind))
        if (machine_id, kind) == (3, 2):
            release.set()

    def use(lane: Lane) -> None:
        for kind in range(3):
            lane(kind, INFO, 2)
            lane(kind, INFO, 3)

    run(lambda: AsyncLane("ul", callback, Troubles()), use)
    assert done == [(3, 0), (3, 1), (3, 2), (2, 0), (2, 1), (2, 2)]


def test_callback_queue_coroutine_raising_is_logged() -> None:
    troubles, done = Troubles(), []

    async def callback(kind: int, info: object, machine_id: int) -> None:
        if kind == 0:
            raise ValueError("bad day")
        if kind == 1:
            raise asyncio.CancelledError
        done.append(kind)

    run(
        lambda: AsyncLane("ul", callback, troubles),
        sending(0, 1, 2),
    )
    assert troubles.failed == [
        "ul bad day ('127.0.0.2', 1)",
        "ul cancelled from within ('127.0.0.2', 1)",
    ]
    assert done == [2]


def test_callback_queue_busy_coroutine_lets_others_run() -> None:
    turns = 0

    async def callback(kind: int, info: object, machine_id: int) -> None:
        until = monotonic() + 0.002
        while monotonic() < until:
            pass

    async def others() -> None:
        nonlocal turns
        for _ in range(10):
            await asyncio.sleep(0)
            turns += 1

    async def use(lane: Lane) -> None:
        for kind in range(20):
            lane(kind, INFO, 2)
        await others()
        assert turns == 10
        assert lane._waiting > 5  # type: ignore[attr-defined]

    run(lambda: AsyncLane("ul", callback, Troubles()), use)


def test_callback_queue_of_coroutines_bounded_except_notices() -> None:
    troubles, done = Troubles(), []

    async def callback(kind: int, info: object, machine_id: int) -> None:
        done.append(kind)

    def use(lane: Lane) -> None:
        for _ in range(5):
            lane(1, INFO, 2)
        lane(SERVER_TIMEOUT, None, 2)

    run(lambda: AsyncLane("ul", callback, troubles, queue_size=3), use)
    assert troubles.left == [("callback queue full", 1)] * 2
    assert done == [1, 1, 1, SERVER_TIMEOUT]


def test_callback_queue_of_coroutines_bounded_in_bytes() -> None:
    troubles, done = Troubles(), []
    noticed = asyncio.Event()

    async def callback(kind: int, info: object, machine_id: int) -> None:
        done.append(kind)
        if kind == SERVER_TIMEOUT:
            noticed.set()

    async def use(lane: Lane) -> None:
        for kind in (1, 2, 3, 4):
            lane(kind, LARGE, 2)
        lane(SERVER_TIMEOUT, None, 2)
        await asyncio.wait_for(noticed.wait(), 5)
        lane(5, LARGE, 2)

    run(lambda: AsyncLane("ul", callback, troubles, queue_bytes=BYTES), use)
    assert troubles.left == [("callback queue full", 1)] * 2
    assert done == [1, 2, SERVER_TIMEOUT, 5], "what is done makes room"


def test_callback_queue_endless_coroutine_cancelled_and_counted() -> None:
    troubles = Troubles()

    async def callback(kind: int, info: object, machine_id: int) -> None:
        await asyncio.sleep(60)

    def use(lane: Lane) -> None:
        for kind in range(4):
            lane(kind, INFO, 2)

    began = monotonic()
    run(lambda: AsyncLane("ul", callback, troubles), use, within_s=0.1)
    assert monotonic() - began < 2
    assert troubles.left == [("stopped", 4)]


def test_callback_queue_thread_gets_packets_in_order() -> None:
    done: list[tuple[int, int]] = []

    def callback(kind: int, info: object, machine_id: int) -> None:
        done.append((kind, threading.get_ident()))

    run(
        lambda: ThreadLane("ul", in_thread(callback), Troubles()),
        sending(*range(100)),
    )
    assert [kind for kind, _ in done] == list(range(100))
    assert {thread for _, thread in done}.isdisjoint({threading.get_ident()})


def test_callback_queue_thread_raising_is_logged() -> None:
    troubles, done = Troubles(), []

    def callback(kind: int, info: object, machine_id: int) -> None:
        if kind == 0:
            raise ValueError("bad day")
        done.append(kind)

    def use(lane: Lane) -> None:
        lane(0, INFO, 2)
        lane(0, None, 2)
        lane(1, INFO, 2)

    run(lambda: ThreadLane("ul", in_thread(callback), troubles), use)
    assert troubles.failed == ["ul bad day ('127.0.0.2', 1)", "ul bad day None"]
    assert done == [1]


def test_callback_queue_of_thread_bounded_except_notices() -> None:
    troubles, done = Troubles(), []
    busy, release = threading.Event(), threading.Event()

    def callback(kind: int, info: object, machine_id: int) -> None:
        busy.set()
        release.wait(10)
        done.append(kind)

    def use(lane: Lane) -> None:
        lane(0, INFO, 2)
        assert busy.wait(5)
        for kind in range(1, 6):
            lane(kind, INFO, 2)
        lane(SERVER_TIMEOUT, None, 2)
        release.set()

    run(lambda: ThreadLane("ul", in_thread(callback, queue_size=2), troubles), use)
    assert troubles.left == [("callback queue full", 1)] * 3
    assert done == [0, 1, 2, SERVER_TIMEOUT]


def test_callback_queue_of_thread_bounded_in_bytes() -> None:
    troubles, done = Troubles(), list[int]()
    busy, release, noticed = (threading.Event() for _ in range(3))

    def callback(kind: int, info: object, machine_id: int) -> None:
        busy.set()
        release.wait(10)
        done.append(kind)
        if kind == SERVER_TIMEOUT:
            noticed.set()

    async def use(lane: Lane) -> None:
        lane(0, LARGE, 2)
        assert busy.wait(5)
        for kind in (1, 2, 3, 4):
            lane(kind, LARGE, 2)
        lane(SERVER_TIMEOUT, None, 2)
        release.set()
        assert await asyncio.to_thread(noticed.wait, 5)
        lane(5, LARGE, 2)

    run(lambda: ThreadLane("ul", in_thread(callback, queue_bytes=BYTES), troubles), use)
    assert troubles.left == [("callback queue full", 1)] * 2
    assert done == [0, 1, 2, SERVER_TIMEOUT, 5], "what is taken out makes room"


def test_callback_queue_endless_thread_left_and_counted() -> None:
    troubles = Troubles()
    busy, release = threading.Event(), threading.Event()

    def callback(kind: int, info: object, machine_id: int) -> None:
        busy.set()
        release.wait(10)

    def use(lane: Lane) -> None:
        for kind in range(4):
            lane(kind, INFO, 2)
        assert busy.wait(5)

    began = monotonic()
    run(lambda: ThreadLane("ul", in_thread(callback), troubles), use, within_s=0.1)
    took = monotonic() - began
    release.set()
    assert took < 2
    assert troubles.left == [("stopped", 3)]
