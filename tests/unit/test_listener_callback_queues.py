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
from clusterer.listener.callback_queues import (
    CallbackQueue,
    CoroutineQueue,
    InThread,
    ThreadQueue,
    queue_for,
)
from clusterer.listener.counters import Counters
from clusterer.listener.drops import Drops
from clusterer.listener.registrations import ReceiveInfo
from clusterer.wire import Packet
from tests.support.processes import EVENTUALLY_S, LATE_S

INFO = ReceiveInfo(("127.0.0.2", 1), Packet("ul", 1, 2))
LARGE = ReceiveInfo(("127.0.0.2", 1), Packet("ul", 1, 2, bytes(30_000)))
"""A packet of which two fit into `BYTES`."""
BYTES = 65_535


class RecordedDrops(Drops):
    """Keeps the reports of a callback queue."""

    def __init__(self) -> None:
        super().__init__(Counters())
        self.failed: list[str] = []
        self.left: list[tuple[str, int]] = []

    def callback_failed(
        self,
        error: BaseException,
        module: str,
        call: object,
        source: object,
        machine_id: int | None,
    ) -> None:
        self.failed.append(f"{module} {error} {source}")

    def packets_left(self, reason: str, module: str, call: object, count: int) -> None:
        if count:
            self.left.append((reason, count))


def run(
    make: Callable[[], CallbackQueue],
    use: Callable[[CallbackQueue], Any],
    *,
    within_s: float = EVENTUALLY_S,
) -> None:
    """Run a queue in a loop, use it there, and end it."""

    async def scene() -> None:
        queue = make()
        result = use(queue)
        if result is not None:
            await result
        await queue.finish(monotonic() + within_s)

    asyncio.run(scene())


def sending(*kinds: int) -> Callable[[CallbackQueue], None]:
    """Return what queues packets of these types from node 2."""

    def use(queue: CallbackQueue) -> None:
        for kind in kinds:
            queue(kind, INFO, 2)

    return use


def test_callback_queue_plain_function_needs_none() -> None:
    assert queue_for("ul", print, RecordedDrops()) is None


class AsyncCallable:
    async def __call__(self, kind: int, info: object, machine_id: int) -> None: ...


def test_callback_queue_is_found_for_every_waiting_kind() -> None:
    async def callback(kind: int, info: object, machine_id: int) -> None: ...

    assert isinstance(queue_for("ul", callback, RecordedDrops()), CoroutineQueue)
    assert isinstance(queue_for("ul", AsyncCallable(), RecordedDrops()), CoroutineQueue)
    assert isinstance(queue_for("ul", in_thread(print), RecordedDrops()), ThreadQueue)


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

    def use(queue: CallbackQueue) -> None:
        for kind in range(3):
            queue(kind, INFO, 2)
            queue(kind, INFO, 3)

    run(lambda: CoroutineQueue("ul", callback, RecordedDrops()), use)
    assert done == [(3, 0), (3, 1), (3, 2), (2, 0), (2, 1), (2, 2)]


def test_callback_queue_coroutine_raising_is_logged() -> None:
    drops, done = RecordedDrops(), []

    async def callback(kind: int, info: object, machine_id: int) -> None:
        if kind == 0:
            raise ValueError("bad day")
        if kind == 1:
            raise asyncio.CancelledError
        done.append(kind)

    run(
        lambda: CoroutineQueue("ul", callback, drops),
        sending(0, 1, 2),
    )
    assert drops.failed == [
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

    async def use(queue: CallbackQueue) -> None:
        for kind in range(20):
            queue(kind, INFO, 2)
        await others()
        assert turns == 10
        assert queue._waiting > 5  # type: ignore[attr-defined]

    run(lambda: CoroutineQueue("ul", callback, RecordedDrops()), use)


def test_callback_queue_of_coroutines_bounded_except_notices() -> None:
    drops, done = RecordedDrops(), []

    async def callback(kind: int, info: object, machine_id: int) -> None:
        done.append(kind)

    def use(queue: CallbackQueue) -> None:
        for _ in range(5):
            queue(1, INFO, 2)
        queue(SERVER_TIMEOUT, None, 2)

    run(lambda: CoroutineQueue("ul", callback, drops, queue_size=3), use)
    assert drops.left == [("callback queue full", 1)] * 2
    assert done == [1, 1, 1, SERVER_TIMEOUT]


def test_callback_queue_of_coroutines_bounded_in_bytes() -> None:
    drops, done = RecordedDrops(), []
    noticed = asyncio.Event()

    async def callback(kind: int, info: object, machine_id: int) -> None:
        done.append(kind)
        if kind == SERVER_TIMEOUT:
            noticed.set()

    async def use(queue: CallbackQueue) -> None:
        for kind in (1, 2, 3, 4):
            queue(kind, LARGE, 2)
        queue(SERVER_TIMEOUT, None, 2)
        await asyncio.wait_for(noticed.wait(), 5)
        queue(5, LARGE, 2)

    run(lambda: CoroutineQueue("ul", callback, drops, queue_bytes=BYTES), use)
    assert drops.left == [("callback queue full", 1)] * 2
    assert done == [1, 2, SERVER_TIMEOUT, 5], "what is done makes room"


def test_callback_queue_endless_coroutine_cancelled_and_counted() -> None:
    drops = RecordedDrops()

    async def callback(kind: int, info: object, machine_id: int) -> None:
        await asyncio.sleep(60)

    def use(queue: CallbackQueue) -> None:
        for kind in range(4):
            queue(kind, INFO, 2)

    began = monotonic()
    run(lambda: CoroutineQueue("ul", callback, drops), use, within_s=0.1)
    assert monotonic() - began < 2 + LATE_S
    assert drops.left == [("stopped", 4)]


def test_callback_queue_thread_gets_packets_in_order() -> None:
    done: list[tuple[int, int]] = []

    def callback(kind: int, info: object, machine_id: int) -> None:
        done.append((kind, threading.get_ident()))

    run(
        lambda: ThreadQueue("ul", in_thread(callback), RecordedDrops()),
        sending(*range(100)),
    )
    assert [kind for kind, _ in done] == list(range(100))
    assert {thread for _, thread in done}.isdisjoint({threading.get_ident()})


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_callback_queue_thread_raising_is_logged(error: type[BaseException]) -> None:
    drops, done = RecordedDrops(), []

    def callback(kind: int, info: object, machine_id: int) -> None:
        if kind == 0:
            raise error("bad day")
        done.append(kind)

    def use(queue: CallbackQueue) -> None:
        queue(0, INFO, 2)
        queue(0, None, 2)
        queue(1, INFO, 2)

    run(lambda: ThreadQueue("ul", in_thread(callback), drops), use)
    assert drops.failed == ["ul bad day ('127.0.0.2', 1)", "ul bad day None"]
    assert done == [1]


def test_callback_queue_of_thread_bounded_except_notices() -> None:
    drops, done = RecordedDrops(), []
    busy, release = threading.Event(), threading.Event()

    def callback(kind: int, info: object, machine_id: int) -> None:
        busy.set()
        release.wait(EVENTUALLY_S)
        done.append(kind)

    def use(queue: CallbackQueue) -> None:
        queue(0, INFO, 2)
        assert busy.wait(EVENTUALLY_S)
        for kind in range(1, 6):
            queue(kind, INFO, 2)
        queue(SERVER_TIMEOUT, None, 2)
        release.set()

    run(lambda: ThreadQueue("ul", in_thread(callback, queue_size=2), drops), use)
    assert drops.left == [("callback queue full", 1)] * 3
    assert done == [0, 1, 2, SERVER_TIMEOUT]


def test_callback_queue_of_thread_bounded_in_bytes() -> None:
    drops, done = RecordedDrops(), list[int]()
    busy, release, noticed = (threading.Event() for _ in range(3))

    def callback(kind: int, info: object, machine_id: int) -> None:
        busy.set()
        release.wait(EVENTUALLY_S)
        done.append(kind)
        if kind == SERVER_TIMEOUT:
            noticed.set()

    async def use(queue: CallbackQueue) -> None:
        queue(0, LARGE, 2)
        assert busy.wait(EVENTUALLY_S)
        for kind in (1, 2, 3, 4):
            queue(kind, LARGE, 2)
        queue(SERVER_TIMEOUT, None, 2)
        release.set()
        assert await asyncio.to_thread(noticed.wait, 5)
        queue(5, LARGE, 2)

    run(lambda: ThreadQueue("ul", in_thread(callback, queue_bytes=BYTES), drops), use)
    assert drops.left == [("callback queue full", 1)] * 2
    assert done == [0, 1, 2, SERVER_TIMEOUT, 5], "what is taken out makes room"


def test_callback_queue_endless_thread_left_and_counted() -> None:
    drops = RecordedDrops()
    busy, release = threading.Event(), threading.Event()

    def callback(kind: int, info: object, machine_id: int) -> None:
        busy.set()
        release.wait(EVENTUALLY_S)

    def use(queue: CallbackQueue) -> None:
        for kind in range(4):
            queue(kind, INFO, 2)
        assert busy.wait(EVENTUALLY_S)

    began = monotonic()
    run(lambda: ThreadQueue("ul", in_thread(callback), drops), use, within_s=0.1)
    took = monotonic() - began
    release.set()
    assert took < 2 + LATE_S
    assert drops.left == [("stopped", 3)]
