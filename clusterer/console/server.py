"""Serves the console over HTTP until a signal."""

from __future__ import annotations

import logging
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn

from clusterer.console.app import App
from clusterer.console.console import Console
from clusterer.errors import ClustererError
from clusterer.settings import Settings

log = logging.getLogger(__name__)

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

PORT = 8088
ADDRESS = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Listen:
    """Where the console listens."""

    address: str = ADDRESS
    port: int = PORT
    """0: a free port."""


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


def serve(settings: Settings, listen: Listen) -> None:
    """Serve until SIGTERM or SIGINT. Raises `ClustererError` if the address cannot be used."""
    app = App(Console(settings))
    with open_socket(listen) as opened:
        server = Server(config_of(app), app)
        log.info("console: listening on %s", url_of(opened))
        server.run([opened])


def config_of(app: App) -> uvicorn.Config:
    """Return uvicorn's configuration: it logs warnings only, and names no server."""
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    return uvicorn.Config(
        app.asgi,
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=5,
        proxy_headers=False,
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
        raise ClustererError(f"console: cannot listen on {where}: {error.strerror}") from error


def url_of(opened: socket.socket) -> str:
    """Return the URL of a listening socket."""
    host, port = opened.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
