"""``clusterer console`` as a process: its start, its end, and what it says."""

from __future__ import annotations

import re
from pathlib import Path

import httpx

from clusterer.settings import Settings, as_environment
from tests.support import docs
from tests.support.consoles import watching
from tests.support.ports import free_port
from tests.support.processes import EVENTUALLY_S, spawn
from tests.support.transcripts import plain, shown


def test_console_prints_its_url_and_stops_with_streams_open(settings: Settings) -> None:
    on_page = plain(shown(docs.command_section("console"), "clusterer console"))
    words = ["-m", "clusterer", "console", "--port", "0"]
    with spawn(words, as_environment(settings)) as process:
        process.wait_for_output("listening on http://", EVENTUALLY_S)
        (url,) = re.findall(r"http://[\d.:]+", process.output())
        assert plain(process.output(), {url: "http://127.0.0.1:8088"}) == on_page
        with httpx.Client(base_url=url, timeout=EVENTUALLY_S) as client:
            assert client.get("/settings").status_code == 200
            with watching(client, "/events") as events:
                events.next()
                assert process.terminate(EVENTUALLY_S) == 0


def test_up_serves_the_console(tmp_path: Path) -> None:
    port = free_port()
    words = ["up", "--data-dir", str(tmp_path), "--console", f"--console-port={port}"]
    with spawn(["-m", "clusterer", *words]) as process:
        process.wait_for_output(f"console: listening on http://127.0.0.1:{port}/", EVENTUALLY_S)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=EVENTUALLY_S) as client:
            content = client.get("/api/v1/overview").json()
            assert "cluster" in str(content)
            with watching(client, "/events") as events:
                events.next()
                assert process.terminate(EVENTUALLY_S) == 0


def test_console_without_its_extra_says_what_to_install(tmp_path: Path) -> None:
    """A program that hides starlette, as if the extra were not installed."""
    hide = "import sys; sys.modules['starlette'] = None; sys.modules['uvicorn'] = None; "
    start = "from clusterer.cli import main; sys.exit(main(sys.argv[1:]))"
    for words in (["console"], ["up", "--console", "--data-dir", str(tmp_path)]):
        with spawn(["-c", hide + start, *words]) as process:
            assert process.wait(EVENTUALLY_S) == 1
            (line,) = process.output().splitlines()
            assert "run `pip install 'clusterer[web]'`" in line
