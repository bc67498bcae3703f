"""Silent clients of the metrics server: neither threads nor scrapes wait for them."""

from __future__ import annotations

import contextlib
import socket
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from clusterer.services.metrics import http, serving
from clusterer.settings import Settings
from tests.support.listening import ended
from tests.support.ports import free_port
from tests.support.processes import EVENTUALLY_S, wait_until


@pytest.fixture(params=["127.0.0.1", "::1"])
def place(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    made = str(request.param), free_port()
    settings = Settings(metrics_address=made[0], metrics_port=made[1])
    with serving(settings, lambda: ()) as registry:
        assert registry is not None
        yield made


def scraped(place: tuple[str, int]) -> str:
    host = f"[{place[0]}]" if ":" in place[0] else place[0]
    with urllib.request.urlopen(
        f"http://{host}:{place[1]}/metrics", timeout=EVENTUALLY_S
    ) as answer:
        text: str = answer.read().decode()
    return text


def test_metrics_silent_clients_leave_scrape_its_place(place: tuple[str, int]) -> None:
    before = threading.active_count()
    with ExitStack() as stack:
        for number in range(3 * http.MOST_CONNECTIONS):
            client = stack.enter_context(socket.create_connection(place, EVENTUALLY_S))
            if number % 2:
                client.sendall(b"GET /metrics HTT")
        for _ in range(3):
            assert "clusterer_log_lost_lines_total" in scraped(place)
        wait_until(lambda: threading.active_count() <= before + http.MOST_CONNECTIONS)


def test_metrics_silent_client_is_ended_in_time(
    place: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "WITHIN_S", 0.5)
    with (
        socket.create_connection(place, EVENTUALLY_S) as silent,
        contextlib.suppress(ConnectionError),
    ):
        silent.sendall(b"G")
        assert ended(silent)
