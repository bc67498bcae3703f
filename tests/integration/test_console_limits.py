"""Limits of the console: live pages of one user; and what is no HTTP request."""

from __future__ import annotations

import socket

import pytest

from clusterer.console.access import guard
from clusterer.console.access.headers import ALWAYS
from clusterer.settings import Settings
from tests.support.consoles import Source, add_user, log_in, served, watching
from tests.support.processes import EVENTUALLY_S, wait_until


def test_live_pages_of_one_user_leave_room_for_others(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "MOST_PER_USER", 2)
    for name in ("anna", "bert"):
        add_user(settings, name)
    with served(settings, (Source().page,)) as console:
        anna, again, bert = console.client(), console.client(), console.client()
        for client, name in ((anna, "anna"), (again, "anna"), (bert, "bert")):
            assert log_in(client, name).status_code == 303
        with watching(anna, "/source") as first:
            first.next()
            with watching(again, "/source") as second:
                second.next()
                for client in (anna, again):
                    answer = client.get("/live/source")
                    assert answer.status_code == 503
                    assert answer.json()["error"].startswith("2 of your pages are open already")
                with watching(bert, "/source") as other:
                    other.next()
        wait_until(lambda: not console.app.asgi._streams, message="no page is counted any more")
        with watching(anna, "/source") as events:
            events.next()


def test_answer_to_no_http_has_the_headers(settings: Settings) -> None:
    with served(settings, (Source().page,)) as console:
        port = int(console.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), EVENTUALLY_S) as connection:
            connection.sendall(b"oops\r\n\r\n")
            answer = b"".join(iter(lambda: connection.recv(4096), b"")).decode("ascii")
    head, _, body = answer.partition("\r\n\r\n")
    status, *headers = head.split("\r\n")
    assert status == "HTTP/1.1 400 Bad Request"
    found = dict(line.split(": ", 1) for line in headers)
    assert {name.lower(): value for name, value in ALWAYS.items()}.items() <= {
        name.lower(): value for name, value in found.items()
    }.items()
    assert "Invalid HTTP request" in body
