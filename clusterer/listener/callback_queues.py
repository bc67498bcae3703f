"""Callback queues: between the listener and coroutines, and functions that run in a thread."""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from time import monotonic
from typing import Any, Protocol, overload

from clusterer.errors import InvalidArgument
from clusterer.listener.drops import Drops
from clusterer.listener.registrations import Callback, ReceiveInfo
from clusterer.runtime.rounds import Rounds
from clusterer.wire.layout import MAX_FRAME

QUEUE_SIZE = 10_000
"""Packets that may wait for a callback; more are dropped."""

QUEUE_BYTES = 16 * 1024 * 1024
"""Bytes of payload that may wait: 1,600 for each packet. A frame may have 65,535."""

SLICE_S = 0.001
"""Time after which a coroutine that never waits yields to the event loop."""

_CANCEL_S = 0.2


@dataclass(frozen=True, slots=True)
class InThread:
    """A callback that runs in a thread of its own; made by `in_thread`."""

    callback: Callback
    queue_size: int
    queue_bytes: int = QUEUE_BYTES

    def __call__(self, kind: int, info: ReceiveInfo | None, machine_id: int) -> object:
        """Call the callback in the present thread."""
        return self.callback(kind, info, machine_id)


@overload
def in_thread(
    callback: Callback, *, queue_size: int = QUEUE_SIZE, queue_bytes: int = QUEUE_BYTES
) -> InThread: ...


@overload
def in_thread(
    *, queue_size: int = QUEUE_SIZE, queue_bytes: int = QUEUE_BYTES
) -> Callable[[Callback], InThread]: ...


def in_thread(
    callback: Callback | None = None,
    *,
    queue_size: int = QUEUE_SIZE,
    queue_bytes: int = QUEUE_BYTES,
) -> Any:
    """Let the listener call a blocking callback in a thread of its own, one packet at a time.

    For `register_module`, as a decorator or around its argument. At most ``queue_size`` packets
    with ``queue_bytes`` of payload together (from 65,535, the largest frame) wait. More are
    dropped, counted and logged. Notices of timeouts are never dropped. Raises `InvalidArgument`
    for a coroutine function, which needs no thread.
    """
    if callback is None:
        return functools.partial(in_thread, queue_size=queue_size, queue_bytes=queue_bytes)
    if is_async(callback) or not callable(callback):
        raise InvalidArgument(f"in_thread needs a plain function, not {callback!r}")
    if type(queue_size) is not int or queue_size < 1:
        raise InvalidArgument(f"queue_size must be a whole number from 1, not {queue_size!r}")
    if type(queue_bytes) is not int or queue_bytes < MAX_FRAME:
        raise InvalidArgument(
            f"queue_bytes must be a whole number from {MAX_FRAME}, not {queue_bytes!r}"
        )
    return InThread(callback, queue_size, queue_bytes)


def is_async(callback: Any) -> bool:
    """Return whether a call of ``callback`` returns an awaitable."""
    call = getattr(callback, "__call__", None)  # noqa: B004 - the method's kind matters
    return inspect.iscoroutinefunction(callback) or inspect.iscoroutinefunction(call)


class CallbackQueue(Protocol):
    """Takes a callback's calls in the listener's loop, and never blocks the loop."""

    def __call__(self, kind: int, info: ReceiveInfo | None, machine_id: int) -> None:
        """Queue a call."""

    async def finish(self, deadline: float) -> None:
        """Accept no more calls; return when all are done, or at ``deadline`` (monotonic)."""


def queue_for(module: str, callback: Any, drops: Drops) -> CallbackQueue | None:
    """Return the queue that a callback needs, None for a plain function."""
    if isinstance(callback, InThread):
        return ThreadQueue(module, callback, drops)
    if is_async(callback):
        return CoroutineQueue(module, callback, drops)
    return None


class CoroutineQueue:
    """Awaits a coroutine function: in order for each machine_id, machine_ids in parallel."""

    def __init__(
        self,
        module: str,
        callback: Callable[..., Any],
        drops: Drops,
        queue_size: int = QUEUE_SIZE,
        queue_bytes: int = QUEUE_BYTES,
    ) -> None:
        self._module = module
        self._callback = callback
        self._drops = drops
        self._size, self._most_bytes = queue_size, queue_bytes
        self._queues: dict[int, deque[tuple[int, ReceiveInfo | None]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting = self._bytes = 0
        self._ending = False

    def __call__(self, kind: int, info: ReceiveInfo | None, machine_id: int) -> None:
        size = 0 if info is None else len(info.packet.payload)
        full = self._waiting >= self._size or self._bytes + size > self._most_bytes
        if self._ending or (full and info is not None):
            reason = "stopped" if self._ending else "callback queue full"
            self._drops.packets_left(reason, self._module, self._callback, 1)
            return
        self._waiting += 1
        self._bytes += size
        queue = self._queues.get(machine_id)
        if queue is not None:
            queue.append((kind, info))
            return
        queue = self._queues[machine_id] = deque([(kind, info)])
        task = asyncio.get_running_loop().create_task(self._work(machine_id, queue))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def finish(self, deadline: float) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=max(0.0, deadline - monotonic()))
        self._ending = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            # asyncio.run ends a callback that ignores its cancellation.
            await asyncio.wait(self._tasks, timeout=_CANCEL_S)
        if self._waiting:
            self._drops.packets_left("stopped", self._module, self._callback, self._waiting)

    async def _work(self, machine_id: int, queue: deque[tuple[int, ReceiveInfo | None]]) -> None:
        until = monotonic() + SLICE_S
        try:
            while queue:
                kind, info = queue.popleft()
                await self._call(kind, info, machine_id)
                self._waiting -= 1
                if info is not None:
                    self._bytes -= len(info.packet.payload)
                if monotonic() > until:
                    await asyncio.sleep(0)
                    until = monotonic() + SLICE_S
        finally:
            del self._queues[machine_id]

    async def _call(self, kind: int, info: ReceiveInfo | None, machine_id: int) -> None:
        source = info.source if info is not None else None
        try:
            await self._callback(kind, info, machine_id)
        except Exception as error:  # noqa: BLE001 - a module's error must not stop the listener
            self._drops.callback_failed(error, self._module, self._callback, source, machine_id)
        except asyncio.CancelledError:
            if self._ending:
                raise
            # A task inside the callback was cancelled, not the callback.
            inner = RuntimeError("cancelled from within")
            self._drops.callback_failed(inner, self._module, self._callback, source, machine_id)


class ThreadQueue:
    """Calls a function in a thread, in order. The thread starts with the first packet."""

    def __init__(self, module: str, wanted: InThread, drops: Drops) -> None:
        self._module = module
        self._callback = wanted.callback
        self._size, self._most_bytes = wanted.queue_size, wanted.queue_bytes
        self._bytes_in = self._bytes_out = 0
        """Bytes that the listener's thread put in, and that the callback's thread took out."""
        self._drops = drops
        self._queue: SimpleQueue[tuple[int, ReceiveInfo | None, int] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._given_up = False

    def __call__(self, kind: int, info: ReceiveInfo | None, machine_id: int) -> None:
        if info is not None:
            size = len(info.packet.payload)
            waiting = self._bytes_in - self._bytes_out
            if self._queue.qsize() >= self._size or waiting + size > self._most_bytes:
                self._drops.packets_left("callback queue full", self._module, self._callback, 1)
                return
            self._bytes_in += size
        self._queue.put((kind, info, machine_id))
        if self._thread is None:
            name = f"clusterer-{self._module}"
            self._thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._thread.start()

    async def finish(self, deadline: float) -> None:
        if self._thread is None:
            return
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join, max(0.0, deadline - monotonic()))
        self._given_up = True
        if self._thread.is_alive():
            left = max(0, self._queue.qsize() - 1)  # without the end mark
            self._drops.packets_left("stopped", self._module, self._callback, left)

    def _work(self) -> None:
        rounds = Rounds("callback thread")
        while not self._given_up:
            item = self._queue.get()
            if item is None:
                return
            with rounds.guard():
                self._call(*item)

    def _call(self, kind: int, info: ReceiveInfo | None, machine_id: int) -> None:
        if info is not None:
            self._bytes_out += len(info.packet.payload)
        try:
            self._callback(kind, info, machine_id)
        except BaseException as error:  # noqa: BLE001 - not even sys.exit() may end the thread
            source = info.source if info is not None else None
            self._drops.callback_failed(error, self._module, self._callback, source, machine_id)
