"""The listener of an instance: an event loop in the caller's thread."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import threading
from time import monotonic

from clusterer.errors import ClustererError, StateUnavailable
from clusterer.ids import PROTO_BIN, require_id
from clusterer.listener.admission import Admission
from clusterer.listener.callback_queues import Lane, lane_of
from clusterer.listener.capture import Mirror
from clusterer.listener.counters import Counters
from clusterer.listener.dispatch import Dispatcher, members_of
from clusterer.listener.inbound import Connection, Shared
from clusterer.listener.last_seen import Clocks, Handover
from clusterer.listener.ports import Address, Doors
from clusterer.listener.registrations import Callback, Registration, Registry, check_arguments
from clusterer.membership import Node
from clusterer.runtime import forks
from clusterer.runtime.logs import about_machine
from clusterer.runtime.rounds import Rounds
from clusterer.settings import Settings
from clusterer.store import Directory
from clusterer.store.captures import MirrorStore
from clusterer.store.receipts import Receipts
from clusterer.store.watches import Flushed, FlushState

log = logging.getLogger(__name__)

TICK_S = 0.24
"""Between two looks at the clock; every tick flushes, and must do so at least every 250 ms."""

_NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

DRAIN_S = 2.0
"""How long `Listener.serve` waits at its end for coroutines and threads to do what they have."""


class Listener:
    """Accepts BIN connections on the addresses of the machine's own rows, hands packets to the
    registered callbacks, and tells them of nodes that fell silent.

    Made once, served once. ``addresses`` is where it listens now, ``ready`` is set once it does,
    ``counters`` has what it saw.
    """

    def __init__(
        self, settings: Settings, server_id: int, directory: Directory, receipts: Receipts
    ) -> None:
        self._settings = settings
        self._server_id = require_id("server_id", server_id)
        self._directory = directory
        self._registry = Registry(server_id)
        self.counters = Counters()
        self._dispatcher = Dispatcher(server_id, self._registry, self.counters)
        self._clocks = Clocks(server_id, receipts)
        self._mirror = Mirror(server_id, MirrorStore(settings), self.counters)
        self._admission: Admission[Connection] = Admission(settings, server_id, self.counters)
        self._shared = Shared(self._dispatcher, self._mirror, self._admission, settings)
        self._lanes: list[Lane] = []
        self._doors = Doors(lambda address: Connection(self._shared, address))
        self._rows: bool | None = None  # whether we have any, None before the first look
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()
        self._stopping = False
        self._served = threading.Lock()  # taken for good by the one call of `serve`
        self._rounds = Rounds("listener")
        self.addresses: tuple[Address, ...] = ()
        self.ready = threading.Event()
        self.turned_at = monotonic()
        """When the loop last came round (monotonic seconds); four times a second if all is well."""
        self._home = os.getpid()
        forks.renew_in_child(self)

    # -- from any thread ------------------------------------------------------------------------

    def register(
        self,
        module: str,
        callback: Callback,
        *,
        timeout_s: float,
        auth_check: bool,
        cluster_id: int | None,
    ) -> None:
        """Call ``callback(packet_type, receive_info, machine_id)`` with packets of ``module``.

        A node of the cluster that is silent for more than ``timeout_s`` seconds (0: never) is
        announced with SERVER_TIMEOUT and silenced for twice as long. ``auth_check`` lets only
        packets through whose source IP and machine_id are a node of the cluster. Plain functions
        run in the listener's thread, coroutine functions in its loop, those of `in_thread` in a
        thread of their own. Works before and during `serve`.

        Raises `InvalidArgument`, `StateUnavailable` when Redis is away, and `ClustererError` in a
        child that was forked while the parent served.
        """
        self._require_home()
        check_arguments(module, callback, timeout_s, auth_check, cluster_id)
        watch = self._registry.reserve(module, cluster_id or 0, timeout_s)
        try:
            members = members_of(self._directory.views(), watch.cluster_id, self._server_id)
            self._clocks.register(watch, members)
        except ClustererError:
            self._registry.release(watch)
            raise
        lane = lane_of(module, callback, self._dispatcher.troubles)
        if lane is not None:
            self._lanes.append(lane)
        self._registry.add(Registration(watch, lane or callback, auth_check, members))
        self._dispatcher.invalidate()

    def stop(self) -> None:
        """Make `serve` return; before it, make it return at once. Safe to call again."""
        self._stopping = True
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # closed in between
                loop.call_soon_threadsafe(self._wake.set)

    def renew_in_child(self) -> None:
        """Leave a forked child nothing of what is served in the parent.

        A child that kept the sockets would keep the port, and the peers' connections, when the
        parent ends: peers would go on sending to a process that does not read.
        """
        self._loop = None
        forks.abandon(self._doors.descriptors())
        forks.abandon(each.descriptor for each in self._shared.connections)
        self.ready = threading.Event()
        if not self._served.locked():
            self._home = os.getpid()

    def _require_home(self) -> None:
        if self._home != os.getpid():
            raise ClustererError(
                f"this instance receives in process {self._home}, which forked this one: "
                "make another Clusterer here, with a server_id of its own"
            )

    # -- the loop -------------------------------------------------------------------------------

    def serve(self) -> None:
        """Listen until `stop`. Blocks.

        Waits for Redis, and for a row of this machine in the table, as long as it takes.
        """
        self._require_home()
        if not self._served.acquire(blocking=False):
            raise ClustererError("a listener can serve once: make another")
        try:
            asyncio.run(self._serve())
        finally:
            self._loop = None
            self._clocks.stop()
            self._mirror.stop()

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        self._loop = loop
        loop.set_exception_handler(self._on_loop_error)
        await self._wait_for_directory()
        self._clocks.start(lambda reply: self._deliver_in(loop, reply))
        try:
            while not self._stopping:
                next_at = monotonic() + TICK_S
                now = await _all_read()
                with self._rounds.guard():
                    await self._tick(now)
                await self._pause(next_at)
        finally:
            self._close()
            await self._finish_lanes()

    async def _finish_lanes(self) -> None:
        """Let callbacks that wait do what they have, for a bounded time."""
        deadline = monotonic() + DRAIN_S
        await asyncio.gather(*(lane.finish(deadline) for lane in self._lanes))

    async def _wait_for_directory(self) -> None:
        """Wait until the clusters can be read for the first time, off the loop: it may block."""
        said = False
        while not self._stopping:
            try:
                await asyncio.to_thread(self._directory.views)
            except StateUnavailable as error:
                if not said:
                    log.warning("not listening yet: %s", error)
                said = True
                await self._pause(monotonic() + TICK_S)
            else:
                return

    async def _pause(self, until: float) -> None:
        """Wait until ``until`` (monotonic, which is the loop's clock too), or `stop`."""
        self.turned_at = monotonic()
        timer = asyncio.get_running_loop().call_at(until, self._wake.set)
        await self._wake.wait()
        timer.cancel()
        self._wake.clear()

    async def _tick(self, now: float) -> None:
        """Do what is to be done every quarter of a second; ``now`` is that of `_all_read`."""
        views = self._directory.views()
        self._admission.use(views)
        self._dispatcher.use(views)
        self._dispatcher.end_silences(now)
        self._mirror.end(now)
        self._clocks.hand_over(self._harvest(now))
        await self._follow_rows()
        for connection in self._admission:
            connection.expire(now)

    def _harvest(self, now: float) -> Handover:
        """Take what was heard since the last tick."""
        heard, members = {}, {}
        for registration in self._registry.all:
            heard[registration.watch] = registration.heard
            registration.heard = {}
            members[registration.watch] = registration.members
        return Handover(now, heard, members)

    async def _follow_rows(self) -> None:
        """Listen where our rows say. The table may change at any time."""
        wanted = self._own_rows()
        if bool(wanted) != self._rows:
            self._rows = bool(wanted)
            if not wanted:
                log.warning(
                    "machine %d has no row in any bin cluster: not listening until a reload "
                    "brings one",
                    self._server_id,
                    extra=about_machine(self._server_id, ()),
                )
        gone = await self._doors.follow(wanted)
        for connection in self._admission:
            if connection.address in gone:
                connection.close()
        self.addresses = self._doors.addresses
        if self.addresses:
            self.ready.set()

    def _own_rows(self) -> dict[Address, Node]:
        """Return the addresses of our rows, each with the first row that has it."""
        found: dict[Address, Node] = {}
        for key, view in self._directory.views().items():
            own = view.nodes.get(self._server_id)
            if own is not None and key.protocol == PROTO_BIN:
                found.setdefault(own.address, own)
        return found

    def _close(self) -> None:
        self._doors.close()
        self.addresses = ()
        self.ready.clear()
        self._admission.close_all()

    def _on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        """Make room where a connection could not be accepted: the loop tries again in a second."""
        error = context.get("exception")
        if "socket" in context and isinstance(error, OSError) and error.errno in _NO_ROOM:
            self._admission.run_short()
        else:
            loop.default_exception_handler(context)

    # -- notices --------------------------------------------------------------------------------

    def _deliver_in(self, loop: asyncio.AbstractEventLoop, reply: Flushed) -> None:
        with contextlib.suppress(RuntimeError):  # closed in between
            loop.call_soon_threadsafe(self._attempt_take, reply)

    def _attempt_take(self, reply: Flushed) -> None:
        with self._rounds.guard():
            self._take(reply)

    def _take(self, reply: Flushed) -> None:
        if reply.state is FlushState.UNKNOWN:
            self._dispatcher.clear_silences()
            return
        if reply.tailed_ms:
            self._mirror.begin(monotonic() + reply.tailed_ms / 1000)
        if not reply.notices:
            return
        now = monotonic()
        found = {(each.watch.token, each.cluster_id): each for each in self._registry.all}
        for notice in reply.notices:
            registration = found.get((notice.token, notice.cluster_id))
            if registration is not None:
                until = now + (notice.silenced_until_ms - reply.now_ms) / 1000
                self._dispatcher.time_out(registration, notice.machine_id, until)


async def _all_read() -> float:
    """Return a moment (monotonic) by which all that had come in has been looked at.

    A callback, or somebody who stopped the process, may have kept the loop from reading for long:
    what peers sent meanwhile must be seen before their silence is judged. A connection that has
    waited for a callback is taken up again in the loop's next turn, asked for by the one after
    it, and has been read when that is over.
    """
    now = monotonic()
    for _ in range(3):
        await asyncio.sleep(0)
    return now
