"""The connection on which a member sends to one node of a 3.x cluster."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from time import monotonic
from typing import cast

from clusterer.delivery.link import Link, LocalFault
from clusterer.errors import PeerUnreachable, WireError
from clusterer.runtime.logs import LimitedLog
from clusterer.wire import FrameDecoder3, Packet

log = logging.getLogger(__name__)

MAX_WAITING = 262_144
"""Bytes that may wait for a node that does not read; then sending to it has failed. A control
packet has 50 to some hundred bytes, a topology of 128 nodes at most 65,515."""

PAUSE_S = 0.5
"""Pause before the next connection to a node that could not be reached. A node that is not up is
tried every second at the most."""

READ_AT_ONCE = 4096
"""Bytes read of one node before the others have their turn."""

_LOG_INTERVAL_S = 60.0
_limited = LimitedLog(log, _LOG_INTERVAL_S)

Received = Callable[[Packet], None]
Failed = Callable[[str], None]


class Outgoing:
    """Sends frames to one node; the first frame makes the connection. Never blocks, never raises.

    ``received`` gets the packets that the node writes on the connection: an OpenSIPS node answers
    the ping of an unknown node there. ``failed`` gets the reason when frames could not be sent.
    """

    def __init__(
        self,
        address: tuple[str, int],
        source: str,
        timeout_s: float,
        received: Received,
        failed: Failed,
    ) -> None:
        self.address = address
        self.source = source
        self._timeout_s = timeout_s
        self._received = received
        self._failed = failed
        self._transport: asyncio.Transport | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._waiting: list[bytes] = []
        """Frames for the connection that is being made."""
        self._waiting_size = 0
        """Bytes of these frames: a sum for each frame would make a flood of pings dearer."""
        self._paused_until = 0.0
        self._link: Link | None = None

    @property
    def descriptor(self) -> int:
        """The socket's descriptor, -1 without one."""
        return -1 if self._link is None else self._link.fileno()

    def send(self, frame: bytes) -> bool:
        """Write a frame, with one call if the socket takes it; return False if it cannot be sent.

        Frames wait while the connection is being made, or while the node does not read.
        """
        if self._transport is not None and self._transport.is_closing():
            self._transport = self._link = None  # it takes nothing more, and says so later
        if self._transport is not None:
            if self._transport.get_write_buffer_size() + len(frame) > MAX_WAITING:
                self._drop("reads nothing")
                return False
            self._transport.write(frame)
            return True
        if self._connecting is None:
            if monotonic() < self._paused_until:
                return False
            self._connecting = asyncio.get_running_loop().create_task(self._connect())
        if self._waiting_size + len(frame) > MAX_WAITING:
            return False
        self._waiting.append(frame)
        self._waiting_size += len(frame)
        return True

    def resume(self) -> None:
        """End a pause: the node has sent a packet."""
        self._paused_until = 0.0

    def close(self) -> None:
        """Close the connection at once; no callback is called any more."""
        self._received = self._failed = _ignore
        if self._connecting is not None:
            self._connecting.cancel()
        self._drop("")

    # -- the connection -------------------------------------------------------------------------

    async def _connect(self) -> None:
        try:
            link = self._link = Link(self.address, self.source, self._timeout_s)
            try:
                await self._established(link)
            except BaseException:
                link.close()
                raise
        except Exception as error:  # of any kind: without an end, no frame would go out any more
            self._link = None
            self._fail(str(error))
            if not isinstance(error, PeerUnreachable | LocalFault | OSError):
                raise
        finally:
            self._connecting = None

    async def _established(self, link: Link) -> None:
        """Wait until a connection is made; raises `PeerUnreachable`."""
        loop = asyncio.get_running_loop()
        ready = loop.create_future()
        loop.add_writer(link.sock, _set, ready)
        try:
            async with asyncio.timeout(self._timeout_s):
                await ready
        except TimeoutError:
            raise PeerUnreachable(f"no connection within {self._timeout_s:g} s") from None
        finally:
            loop.remove_writer(link.sock)
        link.finish_connecting()
        await loop.create_connection(lambda: _Reader(self), sock=link.sock)

    def _fail(self, reason: str) -> None:
        """Note that the node cannot be reached for now, and that frames are lost."""
        self._paused_until = monotonic() + PAUSE_S
        self._take_waiting()
        # Later: what follows a failure may send, and fail, again.
        asyncio.get_running_loop().call_soon(self._report, reason)

    def _report(self, reason: str) -> None:
        self._failed(reason)

    def _drop(self, reason: str) -> None:
        transport, self._transport = self._transport, None
        self._take_waiting()
        self._link = None
        if transport is not None:
            transport.abort()
        if reason:
            self._fail(reason)

    def _take_waiting(self) -> list[bytes]:
        waiting, self._waiting, self._waiting_size = self._waiting, [], 0
        return waiting

    # -- called by its reader -------------------------------------------------------------------

    def made(self, transport: asyncio.Transport) -> None:
        """Use a connection from now on."""
        self._transport = transport
        for frame in self._take_waiting():  # now: the next frame that is sent must follow them
            self.send(frame)

    def take(self, packet: Packet) -> None:
        """Hand over what the node wrote on the connection."""
        self._received(packet)

    def ended(self, transport: asyncio.Transport | None, *, unsent: bool) -> None:
        """Note that a connection is gone; a node may close an idle one at any time."""
        if transport is not None and transport is self._transport:
            self._transport = self._link = None
            if unsent:
                self._fail("connection ended with bytes unsent")

    def condemn(self, error: WireError) -> None:
        """Close the connection of a node that writes bytes that are not BIN."""
        _limited.warning(
            self.address,
            monotonic(),
            "connection to %s:%d: closed: %s",
            *self.address,
            error,
        )
        self._drop(str(error))


class _Reader(asyncio.BufferedProtocol):
    """Reads the few packets that a node writes on the connection of another one."""

    def __init__(self, outgoing: Outgoing) -> None:
        self._outgoing = outgoing
        self._decoder = FrameDecoder3()
        self._buffer = bytearray(READ_AT_ONCE)
        self._transport: asyncio.Transport | None = None
        self._blocked = False
        """Whether bytes wait that the socket has not taken."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=0)
        self._outgoing.made(self._transport)

    def pause_writing(self) -> None:
        self._blocked = True

    def resume_writing(self) -> None:
        self._blocked = False

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        try:
            for packet in self._decoder.feed(bytes(self._buffer[:nbytes])):
                self._outgoing.take(packet)
        except WireError as error:
            self._outgoing.condemn(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self._outgoing.ended(self._transport, unsent=self._blocked)


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _ignore(_: object) -> None:
    """Do nothing: the connection belongs to no member any more."""
