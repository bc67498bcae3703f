"""Output and replies of processes in the docs, compared with processes started one by one."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import urllib.parse
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from clusterer import PROTO_BIN, Clusterer
from clusterer.provisioning.table import NewRow
from clusterer.services import Context
from clusterer.services.table import reload
from clusterer.settings import Settings, as_environment
from tests.support import docs
from tests.support.ports import free_port
from tests.support.processes import EVENTUALLY_S, ChildProcess, spawn, wait_until
from tests.support.provisioning import NODE_A, NODE_B, provision
from tests.support.transcripts import plain, sessions, shown

SETTINGS = {"server_id": 1}


def started(settings: Settings, *words: str, **more: str) -> AbstractContextManager[ChildProcess]:
    return spawn(["-m", "clusterer", *words], as_environment(settings) | more)


@pytest.mark.parametrize("line", ["worker delivery", "scheduler"])
def test_docs_process_output_is_as_shown(settings: Settings, line: str) -> None:
    words = line.split()
    on_page = plain(shown(docs.command_section(words[0]), f"clusterer {line}"))
    with started(settings, *words) as process:
        process.wait_for_output(on_page.rpartition(" ")[2])
        assert plain(process.output()) == on_page


# -- monitoring.md ---------------------------------------------------------------------------------


def test_docs_metrics_log_line_is_as_shown(settings: Settings) -> None:
    port = str(free_port())
    page = docs.section("monitoring.md", "Metrics")
    (((_, *words), on_page),) = sessions(page)
    with started(settings, *words[1:], CLUSTERER_METRICS_PORT=port) as process:
        process.wait_for_output("scheduler: now active")
        assert plain(process.output(), {port: "9400"}) == plain(on_page)


def test_docs_json_log_line_is_as_shown(settings: Settings) -> None:
    """A delivery worker finds no listener at node 2's address."""
    url = f"bin:127.0.0.2:{free_port('127.0.0.2')}"
    with closing(Context(settings)) as context:
        provision(context, NODE_A, NewRow(1, 2, url, description="Node B"))
        reload.run(context)
    with started(settings, "worker", "delivery", CLUSTERER_LOG_FORMAT="json") as worker:
        with Clusterer(settings=settings) as instance:
            instance.send_to(1, PROTO_BIN, instance.packet("hello", 1).build())
        worker.wait_for_output("send failed")
        (line,) = (text for text in worker.output().splitlines() if "send failed" in text)
    (on_page,) = docs.blocks(docs.section("monitoring.md", "Logs"), "json")
    ours, shown = json.loads(line.replace(url, NODE_B.url)), json.loads(on_page)
    for name in ("time", "pid"):
        assert type(ours.pop(name)) is type(shown.pop(name))
    assert list(ours.items()) == list(shown.items())


# -- mi.md -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Manager:
    """A running ``clusterer mi``."""

    process: ChildProcess
    directory: Path

    def shell(self, script: str) -> str:
        """Run a script of the docs, in this test's directory instead of /tmp; what it prints."""
        here = script.replace("/tmp/", f"{self.directory}/")
        done = subprocess.run(
            ["/bin/sh", "-c", f"{here}\nwait\nrm {self.directory}/answer"],
            capture_output=True,
            text=True,
            timeout=EVENTUALLY_S,
            check=True,
        )
        return done.stdout


@pytest.fixture
def manager(settings: Settings, tmp_path: Path) -> Iterator[Manager]:
    with closing(Context(settings)) as context:
        provision(context, NODE_A, NODE_B)
        reload.run(context)
    web = tmp_path / "mi_http.sock"
    with served(settings, tmp_path, str(web)) as process:
        wait_until((tmp_path / "opensips_fifo").exists)
        yield Manager(process, tmp_path)


@contextmanager
def served(settings: Settings, directory: Path, web: str) -> Iterator[ChildProcess]:
    places = ("--fifo", str(directory / "opensips_fifo"), "--reply-dir", str(directory))
    with started(settings, "mi", "--http", web, *places) as process:
        process.wait_for_output("mi http: listening on")
        yield process


def test_docs_mi_addresses_are_as_shown(manager: Manager) -> None:
    command = "clusterer mi --server-id 1 --http /tmp/mi_http.sock"
    on_page = shown(docs.command_section("mi"), command)
    assert plain(manager.process.output(), {str(manager.directory): "/tmp"}) == plain(on_page)


def test_docs_mi_port_warning_is_as_shown(settings: Settings, tmp_path: Path) -> None:
    port = str(free_port())
    with served(settings, tmp_path, port) as process:
        process.wait_for_output("WARNING")
        said = plain(process.output(), {str(tmp_path): "/tmp", port: "8888"})
    (warning,) = docs.blocks(docs.command_section("mi"), "text")
    assert plain(warning).strip() in said


def test_docs_mi_fifo_reply_is_as_shown(manager: Manager) -> None:
    page = docs.section("mi.md", "Over the FIFO")
    _, by_hand = docs.blocks(page, "sh")
    (reply,) = docs.blocks(page, "text")
    to_list = by_hand.replace("_set_status:answer\\n1\\n2\\n0\\nbin", "_list:answer")
    assert manager.shell(to_list) == reply
    assert manager.shell(by_hand) == "200 OK\n\n"


def test_docs_mi_json_rpc_reply_is_as_shown(manager: Manager) -> None:
    ((words, on_page),) = sessions(docs.section("mi.md", "JSON-RPC 2.0"))
    program, at, path, option, body, url = words
    assert (program, at, option) == ("curl", "--unix-socket", "-d")
    web = path.replace("/tmp", str(manager.directory))
    assert post(web, urllib.parse.urlsplit(url).path, body) == on_page.strip()


def post(unix_socket: str, path: str, body: str) -> str:
    with closing(http.client.HTTPConnection("localhost", timeout=EVENTUALLY_S)) as client:
        client.sock = socket.socket(socket.AF_UNIX)
        client.sock.connect(unix_socket)
        client.request("POST", path, body.encode())
        return client.getresponse().read().decode()
