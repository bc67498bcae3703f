"""The listener of an instance: an event loop in the caller's thread."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from time import monotonic

from clusterer.errors import ClustererError, InvalidArgument, StateUnavailable
from clusterer.ids import require_id
from clusterer.listener.admission import Admission
from clusterer.listener.callback_queues import CallbackQueue, queue_for
from clusterer.listener.capture import Capture
from clusterer.listener.companion import Alone, Companion
from clusterer.listener.counters import Counters
from clusterer.listener.dialects import Control
from clusterer.listener.dispatch import Dispatcher, members_of
from clusterer.listener.inbound import Connection
from clusterer.listener.inquiries import Inquiries, Listing
from clusterer.listener.last_seen import LastSeenWriter, TickReport, all_read
from clusterer.listener.ports import Address, OwnRows, Ports, heeding_lack_of_room
from clusterer.listener.registrations import Callback, Registration, Registry, check_arguments
from clusterer.listener.shared import Shared
from clusterer.runtime import forks
from clusterer.runtime.rounds import Rounds
from clusterer.settings import Settings
from clusterer.store import Directory
from clusterer.store.captures import CaptureStore
from clusterer.store.inquiries import InquiryStore
from clusterer.store.receipts import Receipts
from clusterer.store.watches import Flushed, FlushState

log = logging.getLogger(__name__)

TICK_S = 0.24
"""Between two ticks. Each tick reports to Redis, and a report is due at least every 250 ms."""

FINISH_S = 2.0
"""How long `Listener.serve` waits at its end for callback queues."""


class Listener:
    """Accepts BIN connections on the addresses of the instance's own rows, and hands packets and
    notices of module timeouts to the registered callbacks.

    Serves once. ``addresses`` are the addresses that are listened on now, ``ready`` is set once
    there is one, ``counters`` counts connections and packets.
    """

    def __init__(
        self,
        settings: Settings,
        server_id: int,
        directory: Directory,
        receipts: Receipts,
        companion: Companion | None = None,
    ) -> None:
        self._settings = settings
        self._server_id = require_id("server_id", server_id)
        self._directory = directory
        self._registry = Registry(server_id)
        self.counters = Counters()
        self._dispatcher = Dispatcher(server_id, self._registry, self.counters, settings.dialect3)
        self._last_seen = LastSeenWriter(server_id, receipts)
        self._capture = Capture(server_id, CaptureStore(settings), self.counters)
        self._inquiries = Inquiries(server_id, InquiryStore(settings))
        self._admission: Admission[Connection] = Admission(settings, server_id, self.counters)
        self._shared = Shared(self._dispatcher, self._capture, self._admission, settings)
        self._callback_queues: list[CallbackQueue] = []
        self._ports = Ports(lambda address: Connection(self._shared, address))
        self._own_rows = OwnRows(server_id)
        self._companion: Companion = companion or Alone()
        for cluster_id, control in self._companion.controls.items():
            self.control(cluster_id, control)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pause_over = asyncio.Event()
        self._stopping = False
        self._served = threading.Lock()  # the call of `serve` never releases it
        self._rounds = Rounds("listener")
        self.addresses: tuple[Address, ...] = ()
        self.ready = threading.Event()
        self.turned_at = monotonic()
        """Time of the last tick (monotonic seconds); normally four times a second."""
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

        When no packet of a node came for more than ``timeout_s`` seconds (0: never), the callback
        gets SERVER_TIMEOUT, and the node is muted for twice as long. ``auth_check`` drops packets
        whose source IP and machine_id are not those of a node of the cluster. Plain functions run
        in the listener's thread, coroutine functions in its loop, callbacks of `in_thread` in a
        thread of their own. Works before and during `serve`.

        Raises `InvalidArgument`, `StateUnavailable` when Redis is away, and `ClustererError` in a
        child that was forked while the parent served.
        """
        self._require_home()
        check_arguments(module, callback, timeout_s, auth_check, cluster_id)
        watch = self._registry.reserve(module, cluster_id or 0, timeout_s)
        try:
            members = members_of(self._directory.views(), watch.cluster_id, self._server_id)
            self._last_seen.register(watch, members)
        except ClustererError:
            self._registry.release(watch)
            raise
        queue = queue_for(module, callback, self._dispatcher.drops)
        if queue is not None:
            self._callback_queues.append(queue)
        self._registry.add(Registration(watch, queue or callback, auth_check, members))
        self._dispatcher.invalidate()

    def control(self, cluster_id: int, control: Control) -> None:
        """Hand the control packets of a 3.x cluster to ``control``, in the listener's thread."""
        self._dispatcher.control(cluster_id, control)

    def list_for_others(self, cluster_id: int, listing: Listing) -> None:
        """Let other processes, such as the console, see entries of a table while this one serves.

        Raises `InvalidArgument` for a cluster_id or a listing that is none.
        """
        if not isinstance(listing, Listing):
            raise InvalidArgument(f"listing must be a Listing, not {listing!r:.80}")
        self._inquiries.add(require_id("cluster_id", cluster_id), listing)

    def stop(self) -> None:
        """Make `serve` return, also if `serve` is called later. Safe to call again."""
        self._stopping = True
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # closed in between
                loop.call_soon_threadsafe(self._pause_over.set)

    def renew_in_child(self) -> None:
        """Close the parent's sockets in a forked child.

        Otherwise the port and the connections would outlive the parent, and peers would send to a
        process that does not read.
        """
        self._loop = None
        forks.abandon(self._ports.descriptors())
        forks.abandon(each.descriptor for each in self._admission)
        self.ready = threading.Event()
        if not self._served.locked():
            self._home = os.getpid()

    def _require_home(self) -> None:
        if self._home != os.getpid():
            raise ClustererError(
                f"this instance receives in process {self._home}, the parent of this process: "
                "make another Clusterer in this process, with a server_id of its own"
            )

    # -- the loop -------------------------------------------------------------------------------

    def serve(self) -> None:
        """Listen until `stop`. Blocks.

        Waits without limit for Redis, and for a row of this instance in the table.
        """
        self._begin()
        try:
            asyncio.run(self._serve())
        finally:
            self._end()

    async def serve_in_loop(self) -> None:
        """Listen like `serve`, in the running event loop and without blocking it."""
        self._begin()
        try:
            await self._serve()
        finally:
            await asyncio.to_thread(self._end)

    def _begin(self) -> None:
        self._require_home()
        if not self._served.acquire(blocking=False):
            raise ClustererError("a listener serves only once: make another Clusterer")

    def _end(self) -> None:
        """End the threads, and wait for them."""
        self._companion.stop()
        self._last_seen.stop()
        self._capture.stop()
        self._inquiries.stop()

    async def _serve(self) -> None:
        self._loop = loop = asyncio.get_running_loop()
        try:
            with heeding_lack_of_room(loop, self._admission.run_short):
                await self._listen(loop)
        finally:
            self._loop = None

    async def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        await self._wait_for_directory()
        self._last_seen.start(lambda reply: self._deliver_in(loop, reply))
        self._inquiries.start()
        try:
            while not self._stopping:
                next_at = monotonic() + TICK_S
                now = await all_read()
                with self._rounds.guard():
                    await self._tick(now)
                await self._pause(next_at)
        finally:
            self._close()
            ends = (queue.finish(monotonic() + FINISH_S) for queue in self._callback_queues)
            await asyncio.gather(all_read(), *ends)  # connections just accepted end as well

    async def _wait_for_directory(self) -> None:
        """Wait until the clusters can be read, in a thread: the read may block."""
        logged = False
        while not self._stopping:
            try:
                await asyncio.to_thread(self._directory.views)
            except StateUnavailable as error:
                if not logged:
                    log.warning("instance %d: not listening yet: %s", self._server_id, error)
                logged = True
                await self._pause(monotonic() + TICK_S)
            else:
                return

    async def _pause(self, until: float) -> None:
        """Wait until ``until`` (monotonic, as the loop's clock), or until `stop`."""
        self.turned_at = monotonic()
        timer = asyncio.get_running_loop().call_at(until, self._pause_over.set)
        await self._pause_over.wait()
        timer.cancel()
        self._pause_over.clear()

    async def _tick(self, now: float) -> None:
        """Do the periodic work of the loop; ``now`` is the result of `all_read`."""
        views = self._directory.views()
        self._admission.use(views)
        self._dispatcher.use(views)
        self._dispatcher.unmute(now)
        self._capture.end(now)
        self._last_seen.report(self._harvest(now))
        await self._follow_rows()
        self._companion.turn(views, self.addresses, monotonic())
        for connection in self._admission:
            connection.expire(now)

    def _harvest(self, now: float) -> TickReport:
        """Take the last-seen times since the last tick."""
        times, members = {}, {}
        for registration in self._registry.all:
            times[registration.watch] = registration.last_seen
            registration.last_seen = {}
            members[registration.watch] = registration.members
        return TickReport(now, times, members)

    async def _follow_rows(self) -> None:
        """Listen on the addresses of the own rows, which may change at any time."""
        gone = await self._ports.follow(self._own_rows.wanted(self._directory.views()))
        for connection in self._admission:
            if connection.address in gone:
                connection.close()
        self.addresses = self._ports.addresses
        if self.addresses:
            self.ready.set()

    def _close(self) -> None:
        self._companion.leave()
        self._ports.close()
        self.addresses = ()
        self.ready.clear()
        self._admission.close_all()

    # -- notices --------------------------------------------------------------------------------

    def _deliver_in(self, loop: asyncio.AbstractEventLoop, reply: Flushed) -> None:
        with contextlib.suppress(RuntimeError):  # closed in between
            loop.call_soon_threadsafe(self._take, reply)

    def _take(self, reply: Flushed) -> None:
        with self._rounds.guard():
            if reply.state is FlushState.UNKNOWN:
                self._dispatcher.unmute_all()
                return
            if reply.tailed_ms:
                self._capture.begin(monotonic() + reply.tailed_ms / 1000)
            if reply.notices:
                self._dispatcher.take(reply.notices, reply.now_ms)
