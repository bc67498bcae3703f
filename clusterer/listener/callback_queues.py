"""Callbacks that wait: coroutines, and functions with a thread of their own, behind queues."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from time import monotonic
from typing import Any, Protocol, overload

from clusterer.errors import InvalidArgument
from clusterer.listener.registrations import Callback, ReceiveInfo, Source
from clusterer.runtime.rounds import Rounds
from clusterer.wire.layout import MAX_FRAME

log = logging.getLogger(__name__)

QUEUE_SIZE = 10_000
"""Packets that wait for a callback before more are dropped."""

QUEUE_BYTES = 16 * 1024 * 1024
"""Bytes of their payloads, likewise: 1,600 for each packet. Frames may have 65,535."""

SLICE_S = 0.001
"""How long a coroutine that never waits may go from packet to packet without letting others run."""


@dataclass(frozen=True, slots=True)
class InThread:
    """A callback that wants a thread of its own; made by `in_thread`."""

    callback: Callback
    queue_size: int
    queue_bytes: int = QUEUE_BYTES

    def __call__(self, kind: int, info: ReceiveInfo | None, machine_id: int) -> object:
        """Call the callback here and now."""
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
    """Have a callback that blocks called in a thread of its own, one packet after the other.

    For `register_module`, as a decorator or around its argument. At most ``queue_size`` packets
    wait, with ``queue_bytes`` of payload together (from 65,535, the largest frame); more are
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
    """Tell whether a call of ``callback`` gives something to be awaited."""
    call = getattr(callback, "__call__", None)  # noqa: B004 - its kind is asked, not whether
    return inspect.iscoroutinefunction(callback) or inspect.iscoroutinefunction(call)


class Complaints(Protocol):
    """Where lanes tell what went wrong; may be called from any thread."""

    def callback_failed(
        self, error: Exception, module: str, call: object, source: Source, machine_id: int
    ) -> None:
        """Count and log what a callback raised; ``source`` is None for a notice of ours."""

    def packets_left(self, reason: str, module: str, call: object, count: int) -> None:
        """Count and log packets that a callback did not get."""


class Lane(Protocol):
    """Stands for a callback in the listener's loop, and never makes it wait."""

    def __call__(self, kind: int, info: ReceiveInfo | None, machine_id: int) -> None:
        """Queue a call."""

    async def finish(self, deadline: float) -> None:
        """Take no more; end when all is done, at ``deadline`` (monotonic) at the latest."""


def lane_of(module: str, callback: Any, troubles: Complaints) -> Lane | None:
    """Return the lane that a callback needs, None for a plain function."""
    if isinstance(callback, InThread):
        return ThreadLane(module, callback, troubles)
    if is_async(callback):
        return AsyncLane(module, callback, troubles)
    return None


class AsyncLane:
    """Awaits a coroutine function: the packets of one machine_id in order, machines at once."""

    def __init__(
        self,
        module: str,
        callback: Callable[..., Any],
        troubles: Complaints,
        queue_size: int = QUEUE_SIZE,
        queue_bytes: int = QUEUE_BYTES,
    ) -> None:
        self._module = module
        self._callback = callback
        self._troubles = troubles
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
            self._troubles.packets_left(reason, self._module, self._callback, 1)
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
            # A callback that will not be cancelled is left to the loop's own end.
            await asyncio.wait(self._tasks, timeout=_CANCEL_S)
        if self._waiting:
            self._troubles.packets_left("stopped", self._module, self._callback, self._waiting)

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
        except Exception as error:  # noqa: BLE001 - a module's fault must not stop the listener
            self._troubles.callback_failed(error, self._module, self._callback, source, machine_id)
        except asyncio.CancelledError:
            if self._ending:
                raise
            # Something inside the callback was cancelled, not the callback.
            inner = RuntimeError("cancelled from within")
            self._troubles.callback_failed(inner, self._module, self._callback, source, machine_id)


class ThreadLane:
    """Calls a function in a thread, in order. The thread starts with the first packet."""

    def __init__(self, module: str, wanted: InThread, troubles: Complaints) -> None:
        self._module = module
        self._callback = wanted.callback
        self._size, self._most_bytes = wanted.queue_size, wanted.queue_bytes
        self._bytes_in = self._bytes_out = 0
        """Bytes put in by the listener's thread and taken out by ours: each writes one of them."""
        self._troubles = troubles
        self._queue: SimpleQueue[tuple[int, ReceiveInfo | None, int] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._given_up = False

    def __call__(self, kind: int, info: ReceiveInfo | None, machine_id: int) -> None:
        if info is not None:
            size = len(info.packet.payload)
            waiting = self._bytes_in - self._bytes_out
            if self._queue.qsize() >= self._size or waiting + size > self._most_bytes:
                self._troubles.packets_left("callback queue full", self._module, self._callback, 1)
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
            left = max(0, self._queue.qsize() - 1)  # one is the end
            self._troubles.packets_left("stopped", self._module, self._callback, left)

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
        except Exception as error:  # noqa: BLE001 - a module's fault must not end its thread
            source = info.source if info is not None else None
            self._troubles.callback_failed(error, self._module, self._callback, source, machine_id)


_CANCEL_S = 0.2
