"""Live updates of the console: one load for all browsers, only what changed, and outages."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator

import httpx
import pytest

from clusterer.errors import StateUnavailable
from clusterer.settings import Settings
from tests.support.consoles import TIMEOUT_S, Served, Source, served, watching
from tests.support.processes import rounds, wait_until


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def console(settings: Settings, source: Source) -> Iterator[Served]:
    with served(settings, (source.page,)) as made:
        yield made


def version_of(html: str) -> str:
    (found,) = re.findall(r'data-version="([^"]+)"', html)
    return str(found)


def test_live_sends_only_what_changed_since_the_page(console: Served, source: Source) -> None:
    with console.client() as client:
        shown = version_of(client.get("/source").text)
        with watching(client, "/source", shown) as events:
            assert events.next()["event"] == "ping"
            source.value = "<b>"
            found = events.next("changes")
            assert found["fragments"] == {"value": '<li id="value" data-live>&lt;b&gt;</li>'}
        source.value = "c"
        with watching(client, "/source", found["id"]) as events:
            assert ">c<" in events.next("changes")["fragments"]["value"]


def test_live_unchanged_page_pings(console: Served) -> None:
    with console.client() as client:
        shown = version_of(client.get("/source").text)
        with watching(client, "/source", shown) as events:
            found = [events.next() for _ in range(3)]
    assert [each["event"] for each in found] == ["ping"] * 3
    assert {each["id"] for each in found} == {shown}


def test_live_unknown_version_gets_all_fragments(console: Served) -> None:
    with console.client() as client, watching(client, "/source", "other") as events:
        assert list(events.next("changes")["fragments"]) == ["values"]


def test_live_fifty_browsers_cost_one_load_a_second(console: Served, source: Source) -> None:
    with contextlib.ExitStack() as stack:
        limits = httpx.Limits(max_connections=None)
        client = stack.enter_context(console.client(limits=limits))
        shown = version_of(client.get("/source").text)
        found = [stack.enter_context(watching(client, "/source", shown)) for _ in range(50)]
        before = source.loads
        source.value = "b"
        for events in found:
            assert ">b<" in events.next("changes")["fragments"]["value"]
        wait_until(lambda: source.loads >= before + 3, 20)
        assert all(client.get("/api/v1/source").json()["value"] for _ in range(20))
    wait_until(lambda: not running(console), 20, "the stream to end with its last browser")


def running(console: Served) -> bool:
    return any(stream.task for stream in console.app.hub._streams.values())


def test_live_page_of_a_watched_stream_costs_no_load(console: Served, source: Source) -> None:
    with console.client() as client:
        shown = version_of(client.get("/source").text)
        with watching(client, "/source", shown) as events:
            events.next()
            before, begun = source.loads, time.monotonic()
            for _ in rounds(2):
                assert client.get("/api/v1/source").status_code == 200
            assert source.loads - before <= time.monotonic() - begun + 2


def test_live_without_browsers_loads_nothing(console: Served, source: Source) -> None:
    with console.client() as client:
        shown = version_of(client.get("/source").text)
        with watching(client, "/source", shown) as events:
            events.next()
        wait_until(lambda: not running(console), 20)
        before = source.loads
        for _ in rounds(2.5):
            assert source.loads == before


def test_live_outage_is_reported_and_ends(console: Served, source: Source) -> None:
    with console.client() as client:
        shown = version_of(client.get("/source").text)
        with watching(client, "/source", shown) as events:
            source.error = StateUnavailable("Redis is away")
            assert events.next("trouble")["text"] == "Redis is away"
            source.error, source.value = None, "b"
            assert events.next("trouble")["text"] == ""
            assert events.next("changes")["fragments"]


def test_live_page_with_a_bug_goes_on(console: Served, source: Source) -> None:
    with console.client() as client:
        shown = version_of(client.get("/source").text)
        with watching(client, "/source", shown) as events:
            source.error = ZeroDivisionError("secret")
            assert "secret" not in events.next("trouble")["text"]
            source.error = None
            assert events.next("trouble")["text"] == ""


def test_live_streams_end_when_the_console_stops(settings: Settings, source: Source) -> None:
    with contextlib.ExitStack() as stack, contextlib.ExitStack() as stopping:
        console = stopping.enter_context(served(settings, (source.page,)))
        # Not the console's own client, which ends with the console.
        client = stack.enter_context(httpx.Client(base_url=console.url, timeout=TIMEOUT_S))
        with watching(client, "/source") as events:
            events.next()
            stopping.close()
            with pytest.raises(EOFError):
                events.next("no such event")


@pytest.mark.parametrize(
    ("query", "status"), [("none", 404), ("x" * 201, 400), ("%ff%00", 200), ("", 200)]
)
def test_page_errors_have_their_status(console: Served, query: str, status: int) -> None:
    with console.client() as client:
        for path in ("/source", "/api/v1/source"):
            assert client.get(f"{path}?q={query}&other=1").status_code == status
