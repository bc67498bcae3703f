"""The servers of `clusterer mi` in one event loop."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from clusterer.errors import InvalidArgument
from clusterer.mi.datagram_server import DatagramServer
from clusterer.mi.fifo_server import FifoServer
from clusterer.mi.http_server import PATH, HttpServer
from clusterer.mi.jsonrpc import Handler
from clusterer.mi.listen_address import Access, Address, Place
from clusterer.runtime.stop import StopFlag

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Options:
    """Addresses of the management interface, and their permissions."""

    fifo: Path | None = None
    reply_dir: Path = Path("/tmp")  # noqa: S108 - the default of mi_fifo, which scripts use
    http: Address | None = None
    datagram: Address | None = None
    access: Access = field(default_factory=Access)
    """For the FIFO and for unix sockets."""


def serve(handler: Handler, options: Options, stop: StopFlag) -> None:
    """Serve until ``stop`` is set; ``handler`` executes the commands.

    Raises `ClustererError` if an address cannot be served.
    """
    if not (options.fifo or options.http or options.datagram):
        raise InvalidArgument("no address to serve: give a FIFO, --http or --datagram")
    asyncio.run(_serve(handler, options, stop))


async def _serve(handler: Handler, options: Options, stop: StopFlag) -> None:
    stopped = asyncio.Event()
    running: list[asyncio.Task[object]] = [asyncio.create_task(stopped.wait())]
    loop = asyncio.get_running_loop()
    loop.add_reader(stop.fileno(), stopped.set)
    async with AsyncExitStack() as stack:
        stack.callback(loop.remove_reader, stop.fileno())
        if options.fifo:
            fifo = FifoServer(handler, options.fifo, options.reply_dir, options.access)
            stack.callback(fifo.close)
            running.append(asyncio.create_task(fifo.run()))
            log.info("mi fifo: listening on %s, replies in %s", options.fifo, options.reply_dir)
        if options.http:
            http = HttpServer(handler, options.http, options.access)
            await http.start()
            stack.callback(http.close)
            log.info("mi http: listening on %s, POST %s", options.http, PATH)
        if options.datagram:
            datagram = DatagramServer(handler, options.datagram, options.access)
            await datagram.start()
            stack.callback(datagram.close)
            log.info("mi datagram: listening on %s", options.datagram)
        _warn_of_ports(options)
        done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()


def _warn_of_ports(options: Options) -> None:
    """Warn about a port: a port has no owner and no mode, which restrict a FIFO."""
    for option, address in (("http", options.http), ("datagram", options.datagram)):
        if isinstance(address, Place):
            reached_by = (
                "every user of this host" if address.is_local else "every host of its network"
            )
            log.warning(
                "mi %s: %s reaches %s and can command the cluster; restrict access with "
                "a unix socket, --mode and --owner: --%s /run/clusterer/mi_%s.sock",
                *(option, reached_by, address, option, option),
            )
