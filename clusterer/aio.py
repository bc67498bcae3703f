"""The functions of `clusterer.Clusterer` as coroutines.

Both faces stand on `clusterer.core`. What answers from memory runs in the event loop; sends wait in
the queue of posted packets, whose background thread sends those of all tasks together; the rest
runs in an executor.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from functools import partial
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from clusterer import api
from clusterer.core import Face
from clusterer.errors import ClustererError
from clusterer.listener import Callback, Listing
from clusterer.membership import Node
from clusterer.runtime import forks
from clusterer.settings import Settings
from clusterer.store import ClusterKey
from clusterer.wire import Packet

THREADS = 4
"""Threads for calls that wait for Redis."""

P = ParamSpec("P")
R = TypeVar("R")


class Clusterer(Face):
    """One instance of the cluster, in an event loop.

    Connects to nothing until it is used. Cancelling a task that waits for a send leaves open
    whether the packet is sent.

    >>> async with Clusterer(
    ...     server_id=1, redis_url="redis://localhost"
    ... ) as cluster:  # doctest: +SKIP
    ...     packet = cluster.packet("mymodule", 1).push_str("hello").build()
    ...     await cluster.send_to(1, "bin", packet)
    """

    def __init__(
        self, server_id: int | None = None, *, settings: Settings | None = None, **overrides: Any
    ) -> None:
        """Make the instance; the arguments and errors are those of `clusterer.Clusterer`."""
        super().__init__(server_id, settings=settings, **overrides)
        self._executor: ThreadPoolExecutor | None = None
        self._teller: _Teller | None = None
        forks.renew_in_child(self)

    def renew_in_child(self) -> None:
        """Leave the threads to the parent."""
        self._executor = None
        self._teller = None

    # -- the guide's functions --------------------------------------------------------------------

    async def get_nodes(self, cluster_id: int, proto: str) -> list[Node]:
        """See `clusterer.Clusterer.get_nodes`."""
        return await self._look_up(self._core.get_nodes, cluster_id, proto)

    async def free_nodes(self, nodes: list[Node]) -> None:
        """See `clusterer.Clusterer.free_nodes`."""
        self._core.free_nodes(nodes)

    async def set_state(self, cluster_id: int, machine_id: int, state: int, proto: str) -> None:
        """See `clusterer.Clusterer.set_state`."""
        await self._in_thread(self._core.set_state, cluster_id, machine_id, state, proto)

    async def check(
        self, cluster_id: int, sockaddr: tuple[Any, ...], server_id: int, proto: str
    ) -> int:
        """See `clusterer.Clusterer.check`."""
        return await self._look_up(self._core.check, cluster_id, sockaddr, server_id, proto)

    async def get_my_id(self) -> int:
        """Return this instance's machine_id."""
        return self._core.machine_id

    async def send_to(self, cluster_id: int, proto: str, packet: Packet) -> int:
        """See `clusterer.Clusterer.send_to`; tasks that wait at one moment share a round trip."""
        return await self.send_many(cluster_id, proto, (packet,))

    async def send_many(self, cluster_id: int, proto: str, packets: Sequence[Packet]) -> int:
        """See `clusterer.Clusterer.send_many`."""
        with self._core.sender.sending(cluster_id, proto, packets) as call:
            nodes = self._core.view.up_in_copy(call.key)
            if nodes is None:
                nodes = await self._in_thread(self._core.view.up, call.key, must_exist=True)
            for frames in call.sub_batches:
                await self._append(call.key, frames)
                call.accepted += len(frames)
        return len(nodes)

    async def post(self, cluster_id: int, proto: str, packet: Packet) -> int:
        """See `clusterer.Clusterer.post`."""
        return await self._look_up(self._core.sender.post, cluster_id, proto, packet)

    async def flush(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109 - as the other face
        """See `clusterer.Clusterer.flush`."""
        sender = self._core.sender
        sent = asyncio.Event()
        call = partial(_call_in, asyncio.get_running_loop(), sent.set)
        answer = sender.begin_flush(timeout, call)
        if answer is not None:
            return answer
        try:
            await asyncio.wait_for(sent.wait(), timeout)
        except TimeoutError:
            return False
        finally:
            sender.forget(call)
        return True

    async def register_module(  # noqa: PLR0917 - the guide's six parameters
        self,
        module_name: str,
        proto: str,
        callback: Callback,
        timeout: float,  # noqa: ASYNC109 - the module's, not the call's
        auth_check: bool | int,
        cluster_id: int | None,
    ) -> None:
        """See `clusterer.Clusterer.register_module`.

        Coroutine functions run in the event loop of `serve`; plain functions too, and block it.
        """
        await self._in_thread(
            self._core.register_module,
            module_name,
            proto,
            callback,
            timeout,
            auth_check,
            cluster_id,
        )

    async def list_for_others(self, cluster_id: int, listing: Listing) -> None:
        """See `clusterer.Clusterer.list_for_others`."""
        self._core.listener.list_for_others(cluster_id, listing)

    # -- around them ------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Receive packets and call callbacks in this event loop until `stop`, or cancelled."""
        await self._core.listener.serve_in_loop()

    async def reachable_nodes(self, cluster_id: int, proto: str) -> list[Node]:
        """See `clusterer.Clusterer.reachable_nodes`."""
        return await self._look_up(self._core.reachable_nodes, cluster_id, proto)

    @property
    def blocking(self) -> api.Clusterer:
        """The same instance with blocking functions, for threads and for modules."""
        return api.face_of(self._core)

    async def close(self) -> None:
        """See `clusterer.Clusterer.close`."""
        await self._in_thread(self._core.close)
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    # -- ways of a call ---------------------------------------------------------------------------

    async def _look_up(self, call: Callable[P, R], *args: P.args, **more: P.kwargs) -> R:
        """Make a call that answers from the snapshot; in a thread if it must read Redis first."""
        if self._core.directory.is_kept_fresh:
            return call(*args, **more)
        return await self._in_thread(call, *args, **more)

    async def _in_thread(self, call: Callable[P, R], *args: P.args, **more: P.kwargs) -> R:
        """Make a call that may wait for Redis."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(THREADS, "clusterer-aio")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, partial(call, *args, **more))

    def _append(self, key: ClusterKey, frames: Sequence[bytes]) -> asyncio.Future[None]:
        """Have the background thread append frames; done once Redis has accepted them."""
        loop = asyncio.get_running_loop()
        if self._teller is None or self._teller.loop is not loop:
            self._teller = _Teller(loop)
        accepted: asyncio.Future[None] = loop.create_future()
        self._core.sender.submit(key, frames, accepted, self._teller)
        return accepted


class _Teller:
    """Brings results from the background thread to the tasks of one event loop, many at once."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop

    def __call__(self, waiters: list[Any], error: ClustererError | None) -> None:
        _call_in(self.loop, partial(_settle, waiters, error))


def _call_in(loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: no task waits
        loop.call_soon_threadsafe(call)


def _settle(waiters: list[asyncio.Future[None]], error: ClustererError | None) -> None:
    for accepted in waiters:
        if accepted.done():
            continue  # cancelled
        if error is None:
            accepted.set_result(None)
        else:
            own = copy(error)  # each task changes its own copy
            own.__cause__ = error.__cause__
            accepted.set_exception(own)
