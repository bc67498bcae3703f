"""Serves the console over HTTP until a signal."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from clusterer.console.access.headers import ALWAYS
from clusterer.console.app import App
from clusterer.console.console import Console
from clusterer.errors import ClustererError, StateUnavailable
from clusterer.services.admin import console_users
from clusterer.settings import Settings

log = logging.getLogger(__name__)

MOST_CONNECTIONS = 1000
"""Open connections; one more gets 503."""
HEAD_S = 10.0
"""Time in which the head of a request must have arrived, counted from the connection or from the
first bytes after the last answer. uvicorn has a timeout for connections without any byte after an
answer only: so many silent connections would keep all others out."""
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

PORT = 8088
ADDRESS = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Listen:
    """Where the console listens."""

    address: str = ADDRESS
    port: int = PORT
    """0: a free port."""
    trusted_proxies: tuple[str, ...] = ()
    """IP addresses and networks of proxies whose X-Forwarded-For and X-Forwarded-Proto count."""

    @property
    def local(self) -> bool:
        """Whether only this host reaches the console; a proxy makes it reachable for others."""
        return ipaddress.ip_address(self.address).is_loopback and not self.trusted_proxies


class Protocol(H11Protocol):
    """A connection of uvicorn with a deadline for the head of each request."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._expect()

    def data_received(self, data: bytes) -> None:
        """Wait for the rest of a head that has not arrived whole."""
        super().data_received(data)
        cycle: Any = self.cycle  # None before the first request
        if cycle is None or cycle.response_complete:
            self._expect()
        else:
            self._expect_no_more()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP request, with the headers that uvicorn leaves out there."""
        head = [*self.server_state.default_headers, (b"content-type", b"text/plain; charset=utf-8")]
        answer = h11.Response(
            status_code=400, reason=b"Bad Request", headers=[*head, (b"connection", b"close")]
        )
        for event in (answer, h11.Data(data=msg.encode("ascii")), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._expect_no_more()
        super().connection_lost(exc)

    def _expect(self) -> None:
        if self._late is None and not self.transport.is_closing():
            self._late = self.loop.call_later(HEAD_S, self.transport.close)

    def _expect_no_more(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


class Server(uvicorn.Server):
    """Ends the open event streams first: the server waits for all connections."""

    def __init__(self, config: uvicorn.Config, app: App) -> None:
        super().__init__(config)
        self._app = app

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Let SIGTERM, SIGINT and SIGHUP end the server, and the process with exit code 0.

        SIGHUP stays ignored where it is (nohup). uvicorn would raise the signal again at the end.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in _STOP_SIGNALS}
        for number, handler in before.items():
            if number != signal.SIGHUP or handler is not signal.SIG_IGN:
                signal.signal(number, self.handle_exit)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._app.hub.close()
        await super().shutdown(sockets)
        for connection in tuple(self.server_state.connections):  # the client reads too slowly
            connection.transport.abort()


def serve(settings: Settings, listen: Listen, origins: Mapping[str, str]) -> None:
    """Serve until SIGTERM or SIGINT. ``origins``: where the settings come from.

    Raises `ClustererError` if the address cannot be used, or if other hosts reach the console and
    it has no users.
    """
    app = App(Console(settings, origins), local=listen.local)
    require_users(app, listen)
    with open_socket(listen) as opened:
        server = Server(config_of(app, listen), app)
        log.info("console: listening on %s", url_of(opened))
        server.run([opened])


def require_users(app: App, listen: Listen) -> None:
    """Raise `ClustererError` if other hosts reach the console and it has no users.

    Without Redis the console starts: it refuses each request until Redis is back.
    """
    if listen.local:
        return
    try:
        known = console_users.read(app.console.context)
    except StateUnavailable as error:
        log.warning("console: %s; refusing requests until Redis is back", error)
        return
    if not known.has_users:
        where = f"a trusted proxy reaches {listen.address}"
        if not listen.trusted_proxies:
            where = f"{listen.address} is no loopback address"
        raise ClustererError(
            f"console: {where}, so the console needs users: run "
            "`clusterer console-user add NAME --role view` first"
        )
    if not listen.trusted_proxies:
        log.warning(
            "console: passwords and pages cross the network unencrypted; use a proxy with TLS on "
            "this host, and `clusterer console --trusted-proxy 127.0.0.1`"
        )


def config_of(app: App, listen: Listen) -> uvicorn.Config:
    """Return uvicorn's configuration: it logs warnings only, and names no server."""
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    return uvicorn.Config(
        app.asgi,
        loop="asyncio",
        http=Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        headers=list(ALWAYS.items()),
        timeout_graceful_shutdown=5,
        proxy_headers=bool(listen.trusted_proxies),
        forwarded_allow_ips=list(listen.trusted_proxies),
        limit_concurrency=MOST_CONNECTIONS,
    )


def open_socket(listen: Listen) -> socket.socket:
    """Return a listening socket. Raises `ClustererError` if the address cannot be used."""
    try:
        family, _, _, _, place = socket.getaddrinfo(
            listen.address, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
        )[0]
        return socket.create_server(place[:2], family=family, backlog=128)
    except OSError as error:
        where = f"{listen.address} port {listen.port}"
        # Python's text adds the address once more.
        reason = (error.strerror or str(error)).partition(" (while")[0]
        raise ClustererError(f"console: cannot listen on {where}: {reason}") from error


def url_of(opened: socket.socket) -> str:
    """Return the URL of a listening socket."""
    host, port = opened.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
