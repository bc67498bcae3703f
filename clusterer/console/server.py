"""Serves the console over HTTP until a signal."""

from __future__ import annotations

import ipaddress
import logging
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn

from clusterer.console.access.headers import ALWAYS
from clusterer.console.app import App
from clusterer.console.console import Console
from clusterer.console.protocol import Protocol
from clusterer.errors import ClustererError, StateUnavailable
from clusterer.services.admin import console_users
from clusterer.settings import Settings

log = logging.getLogger(__name__)

MOST_CONNECTIONS = 1000
"""Open connections; one more gets 503."""
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
