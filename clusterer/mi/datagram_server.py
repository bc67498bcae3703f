"""JSON-RPC in datagrams as in OpenSIPS 3's mi_datagram: one call or batch per datagram."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from pathlib import Path
from time import monotonic
from typing import Any, cast

from clusterer.errors import ClustererError
from clusterer.mi.jsonrpc import Handler, answer
from clusterer.mi.listen_address import Access, Address, Place, free_socket_path, grant
from clusterer.runtime.logs import LimitedLog
from clusterer.runtime.rounds import Rounds
from clusterer.runtime.routes import family_of

log = logging.getLogger(__name__)

_AT_ONCE = 64
"""Requests that are answered at once; more datagrams are dropped."""

_MAX_ANSWER = 65_507
"""Bytes of the largest UDP datagram; the tools use the same limit over unix sockets."""


class DatagramServer(asyncio.DatagramProtocol):
    """Serves one address until `close`."""

    def __init__(self, handler: Handler, address: Address, access: Access) -> None:
        self._handler = handler
        self._address = address
        self._access = access
        self._log = LimitedLog(log, 1.0)
        self._transport: asyncio.DatagramTransport | None = None
        self._socket: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._rounds = Rounds("mi datagram")

    async def start(self) -> None:
        """Listen; raises `ClustererError`."""
        loop = asyncio.get_running_loop()
        try:
            self._socket = self._bound()
            await loop.create_datagram_endpoint(lambda: self, sock=self._socket)
        except OSError as error:
            raise ClustererError(
                f"cannot serve datagrams on {self._address}: {error.strerror}"
            ) from error

    def _bound(self) -> socket.socket:
        """Return a socket bound to the address; raises `OSError`, `ClustererError`."""
        place = self._address
        where: str | tuple[str, int]
        if isinstance(place, Path):
            free_socket_path(place, socket.SOCK_DGRAM)
            family, where = socket.AF_UNIX, os.fspath(place)
        else:
            family = family_of(place.host)
            where = place.host, place.port
        made = socket.socket(family, socket.SOCK_DGRAM)
        try:
            made.setblocking(False)
            made.bind(where)
            if isinstance(place, Path):
                grant(place, self._access)
        except OSError:
            made.close()
            raise
        return made

    def close(self) -> None:
        """Stop listening."""
        if self._transport:
            self._transport.close()
        if not isinstance(self._address, Place):
            self._address.unlink(missing_ok=True)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if len(self._tasks) >= _AT_ONCE:
            self._log.warning("full", monotonic(), "mi datagram: request dropped: too many at once")
            return
        task = asyncio.get_running_loop().create_task(self._answer(data, addr))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def error_received(self, exc: Exception) -> None:
        self._log.warning("lost", monotonic(), "mi datagram: answer not delivered: %s", exc)

    async def _answer(self, data: bytes, addr: Any) -> None:
        peer = addr[0] if isinstance(addr, tuple) else "unix socket"
        with self._rounds.guard():
            reply = await answer(self._handler, data, f"mi datagram {peer}", _MAX_ANSWER)
            if reply and addr:
                self._send(reply, addr)

    def _send(self, reply: bytes, addr: Any) -> None:
        """Send without waiting: asyncio would queue the answers to all clients behind one that
        does not read.
        """
        if self._socket is None:
            return
        try:
            self._socket.sendto(reply, addr)
        except OSError as error:  # BlockingIOError: the client's queue is full
            self.error_received(error)
