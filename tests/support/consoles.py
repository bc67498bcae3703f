"""The console, served over HTTP: in a thread of the test, or as its own process."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Iterator
from functools import partial
from time import monotonic
from typing import Any
from unittest import mock

import httpx
from jinja2 import ChoiceLoader, DictLoader

from clusterer.console.app import App
from clusterer.console.console import Console
from clusterer.console.page import NotFound, Page, Parameters
from clusterer.console.pages import PAGES
from clusterer.console.server import Listen, Server, config_of, open_socket, url_of
from clusterer.services import Context
from clusterer.services.admin import console_users
from clusterer.settings import Settings
from tests.support.processes import EVENTUALLY_S, wait_until

TIMEOUT_S = EVENTUALLY_S
PASSWORD = "correct horse"
FREE = Listen(port=0)
"""The loopback address and a free port."""


class Source:
    """A page whose content the test sets, and which counts its loads."""

    TEMPLATE = (
        '{% extends "base.html" %}{% block content %}<p>{{ content.q }}</p>'
        '<ul id="values" data-live><li id="value" data-live>{{ content.value }}</li></ul>'
        "{% endblock %}"
    )

    def __init__(self) -> None:
        self.loads = 0
        self.value = "a"
        self.error: Exception | None = None
        self.page = Page("source", "/source", "Source", self.load, "source.html", query=("q",))
        self._lock = threading.Lock()

    def load(self, _console: Console, parameters: Parameters) -> dict[str, Any]:
        with self._lock:
            self.loads += 1
        if self.error:
            raise self.error
        if parameters.get("q") == "none":
            raise NotFound("there is no such thing")
        return {"value": self.value, "q": parameters.get("q", "")}


class Served:
    """A console that a thread of the test serves."""

    def __init__(self, app: App, url: str) -> None:
        self.app = app
        self.url = url.rstrip("/")
        self._closing = contextlib.ExitStack()

    def client(self, **options: Any) -> httpx.Client:
        """Return a client with the console's address; it follows no redirects.

        The end of the console closes it.
        """
        client = httpx.Client(base_url=self.url, timeout=TIMEOUT_S, **options)
        self._closing.callback(client.close)
        return client

    def close(self) -> None:
        """Close all clients."""
        self._closing.close()


@contextlib.contextmanager
def served(
    settings: Settings, pages: tuple[Page, ...] = PAGES, listen: Listen = FREE
) -> Iterator[Served]:
    """Serve the console on a free port for the length of a ``with`` block."""
    app = App(Console(settings), local=listen.local, pages=pages)
    templates = app.views._environment
    assert templates.loader
    templates.loader = ChoiceLoader(
        [DictLoader({"source.html": Source.TEMPLATE}), templates.loader]
    )
    with open_socket(listen) as opened:
        server = Server(config_of(app, listen), app)
        thread = threading.Thread(target=server.run, args=([opened],), name="console")
        thread.start()
        try:
            wait_until(lambda: server.started, TIMEOUT_S)
            with contextlib.closing(Served(app, url_of(opened))) as made:
                yield made
        finally:
            server.should_exit = True
            thread.join(TIMEOUT_S)
            assert not thread.is_alive()


class Events:
    """The events of one open stream, as a browser gets them."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.iter_lines()

    def next(self, kind: str = "") -> dict[str, Any]:
        """Return the data of the next event (of a kind); ``id`` is the event's id.

        Raises `TimeoutError` if no such event comes; other events, such as pings, may come.
        """
        found: dict[str, str] = {}
        deadline = monotonic() + EVENTUALLY_S
        for line in self._lines:
            if monotonic() > deadline:
                raise TimeoutError(f"no event {kind!r} within {EVENTUALLY_S} s")
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
    with client.stream(
        "GET", f"/live{path}", params={"version": since} if since else {}
    ) as response:
        assert response.status_code == 200
        yield Events(response)


def add_user(settings: Settings, name: str = "anna", role: str = "operate") -> None:
    """Add a user with the password `PASSWORD`, whose hash costs as little as a token's."""
    cheap = partial(console_users.hashed, cost=console_users.TOKEN_COST)
    with (
        contextlib.closing(Context(settings)) as context,
        mock.patch.object(console_users, "hashed", cheap),
    ):
        console_users.add_user(context, name, role, PASSWORD)


def log_in(client: httpx.Client, name: str = "anna", password: str = PASSWORD) -> httpx.Response:
    """Fill in the login form, as a browser does; the client keeps the cookies."""
    page = client.get("/login")
    fields = {"csrf": form_token(page.text), "name": name, "password": password, "next": "/"}
    return client.post("/login", data=fields)


def form_token(html: str) -> str:
    """Return the token of a page's last form."""
    found = re.findall(r'name="csrf" value="([^"]*)"', html)
    return str(found[-1])
