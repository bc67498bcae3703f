"""The listening sockets of an instance: one per address of its own rows."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from time import monotonic
from typing import Any

from clusterer.membership import Node
from clusterer.membership.views import Views, rows_of
from clusterer.provisioning.address import name_in
from clusterer.provisioning.names import Names
from clusterer.runtime.logs import LimitedLog, about, about_machine_id
from clusterer.runtime.routes import family_of, is_local

log = logging.getLogger(__name__)

Address = tuple[str, int]

_BACKLOG = 1024
_AT_ONCE = 16
"""Connections that asyncio accepts at once, before the admission limits them."""

_NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

_LOG_INTERVAL_S = 30.0
_NAME_S = 1.0
"""Longest wait for a name server."""


class Ports:
    """Listening sockets by address. ``factory`` makes the protocol of a connection to one."""

    def __init__(self, factory: Callable[[Address], asyncio.BaseProtocol]) -> None:
        self._factory = factory
        self._servers: dict[Address, asyncio.Server] = {}
        self._rows: dict[Address, Node] = {}
        self._limited = LimitedLog(log, _LOG_INTERVAL_S)
        self._ask_at: dict[str, float] = {}
        """Time of the next resolution of a name (monotonic seconds)."""
        self._leads: dict[str, str] = {}
        """Result of the last resolution of a name, as text for the log."""

    @property
    def addresses(self) -> tuple[Address, ...]:
        """The addresses that are listened on now."""
        return tuple(self._servers)

    def descriptors(self) -> list[int]:
        """Return the descriptors of the listening sockets."""
        return [sock.fileno() for server in self._servers.values() for sock in server.sockets]

    async def follow(self, wanted: Mapping[Address, Node]) -> list[Address]:
        """Listen on exactly the addresses ``wanted``; return the addresses that are closed now.

        An address that cannot be bound is logged at a limited rate. The next call tries again.
        """
        gone = [address for address in self._servers if address not in wanted]
        for address in gone:
            self._servers.pop(address).close()
            own = self._rows.pop(address)
            log.info("no longer listening on %s port %d", *address, extra=about(own))
        for address, row in wanted.items():
            self._rows[address] = row
            if address not in self._servers:
                await self._open(address)
        return gone

    def close(self) -> None:
        """Stop listening."""
        for server in self._servers.values():
            server.close()
        self._servers.clear()

    async def _open(self, address: Address) -> None:
        host, port = address
        try:
            self._servers[address] = await self._serve(address)
        except OSError as error:
            row = self._rows[address]
            self._limited.warning(
                address,
                monotonic(),
                "cannot listen on %s port %d (own row of this instance): %s%s; retrying",
                host,
                port,
                os.strerror(error.errno) if error.errno else error,
                await self._lead(row),
                extra=lambda: about(row),
            )
        else:
            log.info("listening on %s port %d", host, port, extra=about(self._rows[address]))
            await self._warn_of_absence(address)

    async def _lead(self, row: Node) -> str:
        """Return the address of the name in a row's URL, as text; resolved at a limited rate."""
        name, now = name_in(row.url), monotonic()
        if not name:
            return ""
        if now >= self._ask_at.get(name, now):
            self._ask_at[name] = now + _LOG_INTERVAL_S
            names = Names(timeout_s=_NAME_S)
            names.present = {name: (row.host,)}
            await asyncio.to_thread(names.resolve, [name])
            found = names.addresses.get(name)
            self._leads[name] = (
                f"; {name} resolves to {found} now"
                if found
                else f"; {name} does not resolve: {names.failures[name]}"
            )
        return self._leads[name]

    async def _serve(self, address: Address) -> asyncio.Server:
        family = family_of(address[0])
        listening = socket.create_server(address, family=family, backlog=_BACKLOG)
        server = await asyncio.get_running_loop().create_server(
            lambda: self._factory(address), sock=listening, backlog=_AT_ONCE
        )
        listening.listen(_BACKLOG)  # asyncio sets the kernel's queue to `_AT_ONCE`
        return server

    async def _warn_of_absence(self, address: Address) -> None:
        """Warn about an address of another host: with ``ip_nonlocal_bind`` the bind succeeds."""
        if not is_local(address[0]):
            log.warning(
                "listening on %s port %d, which is not an address of this host now: no packets "
                "until it is; run the instance on the host with the address, or correct its row%s",
                *address,
                await self._lead(self._rows[address]),
                extra=about(self._rows[address]),
            )


class OwnRows:
    """The rows of an instance, on whose addresses it listens."""

    def __init__(self, server_id: int) -> None:
        self._server_id = server_id
        self._any: bool | None = None
        """Whether there were rows; None before the first look."""

    def wanted(self, views: Views) -> dict[Address, Node]:
        """Return the addresses of the own rows in ``views``; log when there are none any more."""
        wanted: dict[Address, Node] = {}  # of rows with one address, the first
        for own in rows_of(self._server_id, views):
            wanted.setdefault(own.address, own)
        if bool(wanted) != self._any:
            self._any = bool(wanted)
            if not wanted:
                log.warning(
                    "instance %d: no row in a bin cluster: not listening; add the row with "
                    "`clusterer node-add`, or correct server_id",
                    self._server_id,
                    extra=about_machine_id(self._server_id, ()),
                )
        return wanted


@contextmanager
def heeding_lack_of_room(
    loop: asyncio.AbstractEventLoop, run_short: Callable[[], object]
) -> Iterator[None]:
    """Call ``run_short`` when the loop cannot accept for want of descriptors or memory.

    The loop accepts again in a second. Other errors go to the handler that the loop had before.
    """
    usual = loop.get_exception_handler()

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if "socket" in context and isinstance(error, OSError) and error.errno in _NO_ROOM:
            run_short()
        elif usual is not None:
            usual(loop, context)
        else:
            loop.default_exception_handler(context)

    loop.set_exception_handler(handle)
    try:
        yield
    finally:
        loop.set_exception_handler(usual)
