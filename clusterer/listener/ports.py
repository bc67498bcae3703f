"""The sockets an instance listens on: one per address of its own rows, as these come and go."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Mapping
from time import monotonic

from clusterer.membership import Node
from clusterer.provisioning.address import name_in
from clusterer.provisioning.names import Names
from clusterer.runtime.logs import LimitedLog, about
from clusterer.runtime.routes import is_local

log = logging.getLogger(__name__)

Address = tuple[str, int]

_BACKLOG = 1024
_AT_ONCE = 16
"""Connections that asyncio accepts in one go: until they are admitted, nothing bounds them."""

_LOG_INTERVAL_S = 30.0
_NAME_S = 1.0
"""Longest wait for a name server."""


class Doors:
    """Listening sockets by address. ``factory`` makes the protocol of a connection to one."""

    def __init__(self, factory: Callable[[Address], asyncio.BaseProtocol]) -> None:
        self._factory = factory
        self._servers: dict[Address, asyncio.Server] = {}
        self._rows: dict[Address, Node] = {}
        self._limited = LimitedLog(log, _LOG_INTERVAL_S)
        self._ask_at: dict[str, float] = {}
        """When a name is to be resolved again (monotonic seconds)."""
        self._leads: dict[str, str] = {}
        """Where names led, in words."""

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where we listen now."""
        return tuple(self._servers)

    def descriptors(self) -> list[int]:
        """Return those of the sockets that listen."""
        return [sock.fileno() for server in self._servers.values() for sock in server.sockets]

    async def follow(self, wanted: Mapping[Address, Node]) -> list[Address]:
        """Listen on exactly the addresses ``wanted``, of rows of ours; return those given up.

        One that cannot be bound is logged now and then: call again to retry.
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
                "cannot listen on %s port %d (this machine's row in the table), trying on: %s%s",
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
        """Return where the name of a row leads now, if it has one; asked for now and then."""
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
                f"; {name} leads to {found} now"
                if found
                else f"; {name} does not resolve: {names.failures[name]}"
            )
        return self._leads[name]

    async def _serve(self, address: Address) -> asyncio.Server:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        listening = socket.create_server(address, family=family, backlog=_BACKLOG)
        server = await asyncio.get_running_loop().create_server(
            lambda: self._factory(address), sock=listening, backlog=_AT_ONCE
        )
        listening.listen(_BACKLOG)  # asyncio has made the kernel's queue as short as its own turns
        return server

    async def _warn_of_absence(self, address: Address) -> None:
        """Say that an address is not here yet: with ``ip_nonlocal_bind`` that is no error."""
        if not is_local(address[0]):
            log.warning(
                "listening on %s port %d, which is not an address of this host now: packets arrive "
                "once it is; run the instance where the address is, or correct its row%s",
                *address,
                await self._lead(self._rows[address]),
                extra=about(self._rows[address]),
            )
