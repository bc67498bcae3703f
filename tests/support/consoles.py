"""The console, served over HTTP: in a thread of the test, or as its own process."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx

from clusterer.console.app import App
from clusterer.console.console import Console
from clusterer.console.page import Page
from clusterer.console.routes import PAGES
from clusterer.console.server import Listen, Server, config_of, open_socket, url_of
from clusterer.settings import Settings
from tests.support.processes import wait_until

TIMEOUT_S = 20.0


class Served:
    """A console that a thread of the test serves."""

    def __init__(self, app: App, url: str) -> None:
        self.app = app
        self.url = url.rstrip("/")

    def client(self, **options: Any) -> httpx.Client:
        """Return a client with the console's address; it follows no redirects."""
        return httpx.Client(base_url=self.url, timeout=TIMEOUT_S, **options)


@contextlib.contextmanager
def served(settings: Settings, pages: tuple[Page, ...] = PAGES) -> Iterator[Served]:
    """Serve the console on a free port for the length of a ``with`` block."""
    app = App(Console(settings), pages)
    with open_socket(Listen(port=0)) as opened:
        server = Server(config_of(app), app)
        thread = threading.Thread(target=server.run, args=([opened],), name="console")
        thread.start()
        try:
            wait_until(lambda: server.started, TIMEOUT_S)
            yield Served(app, url_of(opened))
        finally:
            server.should_exit = True
            thread.join(TIMEOUT_S)
            assert not thread.is_alive()


class Events:
    """The events of one open stream, as a browser gets them."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.iter_lines()

    def next(self, kind: str = "") -> dict[str, Any]:
        """Return the data of the next event (of a kind); ``id`` is the event's id."""
        found: dict[str, str] = {}
        for line in self._lines:
            if line:
                name, _, value = line.partition(": ")
                found[name] = value
            elif not kind or found.get("event") == kind:
                data: dict[str, Any] = json.loads(found["data"])
                return data | {"id": found["id"], "event": found["event"]}
            else:
                found = {}
        raise EOFError("the stream has ended")


@contextlib.contextmanager
def watching(client: httpx.Client, path: str, since: str = "") -> Iterator[Events]:
    """Watch a page, such as ``/settings``, from the version ``since`` on."""
    with client.stream("GET", f"/live{path}", params={"since": since} if since else {}) as response:
        assert response.status_code == 200
        yield Events(response)
