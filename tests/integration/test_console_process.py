"""``clusterer console`` as a process: its start, its end, and what it says."""

from __future__ import annotations

import re

import httpx

from clusterer.settings import Settings, as_environment
from tests.support import docs
from tests.support.consoles import TIMEOUT_S, watching
from tests.support.processes import spawn
from tests.support.transcripts import plain, shown


def test_console_prints_its_url_and_stops_with_streams_open(settings: Settings) -> None:
    on_page = plain(shown(docs.command_section("console"), "clusterer console"))
    words = ["-m", "clusterer", "console", "--port", "0"]
    with spawn(words, as_environment(settings)) as process:
        process.wait_for_output("listening on http://", TIMEOUT_S)
        (url,) = re.findall(r"http://[\d.:]+", process.output())
        assert plain(process.output(), {url: "http://127.0.0.1:8088"}) == on_page
        with httpx.Client(base_url=url, timeout=TIMEOUT_S) as client:
            assert client.get("/settings").status_code == 200
            with watching(client, "/events") as events:
                events.next()
                assert process.terminate(TIMEOUT_S) == 0
