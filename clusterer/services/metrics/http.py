"""The HTTP endpoint of one process. Its clients are bounded in number and in time."""

from __future__ import annotations

import logging
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from socketserver import ThreadingMixIn
from time import monotonic
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    make_wsgi_app,
)
from prometheus_client.registry import Collector

from clusterer.services.metrics.failures import LogCollector, LoopCollector, Surviving
from clusterer.settings import Settings

log = logging.getLogger(__name__)

MOST_CONNECTIONS = 32
"""Most open connections, each with a thread; one more connection ends the oldest."""

WITHIN_S = 15.0
"""Time for a client to send its request and to take the whole answer."""


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Log no requests."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def __init__(self, *args: Any, **more: Any) -> None:
        self._open: dict[socket.socket, float] = {}
        """Connection → time of its accept (monotonic seconds); the oldest comes first."""
        self._lock = threading.Lock()
        super().__init__(*args, **more)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            if len(self._open) >= MOST_CONNECTIONS:
                self._cut(next(iter(self._open)))
            self._open[request] = monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """End connections that take too long; called twice a second."""
        since = monotonic() - WITHIN_S
        with self._lock:
            for request in [each for each, came in self._open.items() if came < since]:
                self._cut(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log no client that goes away."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    def _cut(self, request: socket.socket) -> None:
        """End a connection: its thread finds the end of its input, and ends."""
        del self._open[request]
        with suppress(OSError):
            request.shutdown(socket.SHUT_RDWR)


class _Server6(_Server):
    address_family = socket.AF_INET6


def start_server(
    host: str, port: int, registry: CollectorRegistry
) -> tuple[WSGIServer, threading.Thread]:
    """Serve ``registry`` in a daemon thread; raises `OSError`."""
    family, *_, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    kind = _Server6 if family is socket.AF_INET6 else _Server
    server = make_server(str(place[0]), port, make_wsgi_app(registry), kind, _Handler)
    thread = threading.Thread(target=server.serve_forever, name="clusterer-metrics", daemon=True)
    thread.start()
    return server, thread


@contextmanager
def serving(
    settings: Settings, collectors: Callable[[], Iterable[Collector]]
) -> Iterator[CollectorRegistry | None]:
    """Serve metrics during a ``with`` block, if `metrics_port` is set; ``collectors`` makes ours.

    If the port cannot be opened, the process logs this and works without metrics.
    """
    if not settings.metrics_port:
        yield None
        return
    registry = registry_of((LogCollector(), *collectors()))
    where = settings.metrics_address, settings.metrics_port
    try:
        server, thread = start_server(*where, registry)
    except OSError as error:
        text = "metrics: cannot listen on %s port %d: %s; continuing without metrics"
        log.error(text, *where, error.strerror or error)
        yield registry
        return
    log.info("metrics: listening on http://%s:%d/metrics", *where)
    try:
        yield registry
    finally:
        with suppress(OSError):
            server.shutdown()
            server.server_close()
        thread.join(1)


def registry_of(collectors: Iterable[Collector]) -> CollectorRegistry:
    """Return a registry of ``collectors`` and of prometheus-client's metrics of the process."""
    registry = CollectorRegistry(auto_describe=False)
    for made in (ProcessCollector, PlatformCollector, GCCollector):
        made(registry=registry)
    for collector in (*collectors, LoopCollector()):
        registry.register(Surviving(collector))
    return registry
