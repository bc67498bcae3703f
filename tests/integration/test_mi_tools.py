"""OpenSIPS 3's own tools, `opensips-cli` and `opensips-mi`, against `clusterer mi`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from clusterer.membership import State
from clusterer.provisioning.table import NewRow
from clusterer.services import Context
from clusterer.services.table import reload
from clusterer.settings import Settings, as_environment
from tests.support import docs
from tests.support.ports import free_port
from tests.support.processes import EVENTUALLY_S, ChildProcess, child_environment, spawn, wait_until
from tests.support.programs import missing
from tests.support.provisioning import KEY, NODE_A, NODE_B, events, provision, sql
from tests.support.terminal import Dialogue
from tests.support.transcripts import sessions

TRANSPORTS = ("fifo", "http", "udp", "unix")
NAMES = [
    "clusterer_list",
    "clusterer_reload",
    "clusterer_set_status",
    "clusterer:list",
    "clusterer:reload",
    "clusterer:set_status",
    "which",
]


def program(name: str) -> str:
    """Path of a tool that is installed beside this Python."""
    path = Path(sys.executable).parent / name
    return str(path) if path.exists() else missing(name)


@dataclass(frozen=True, slots=True)
class Site:
    """A `clusterer mi` that listens everywhere, and how the tools are told where."""

    context: Context
    server: ChildProcess
    home: Path
    http: int
    udp: int | None

    def cli_options(self, transport: str) -> list[str]:
        chosen = {
            "fifo": ["fifo", f"fifo_file={self.home}/fifo", f"fifo_reply_dir={self.home}"],
            "http": ["http", f"url=http://127.0.0.1:{self.http}/mi"],
            "udp": ["datagram", "datagram_ip=127.0.0.1", f"datagram_port={self.udp}"],
            "unix": ["datagram", f"datagram_unix_socket={self.home}/datagram"],
        }[transport]
        words = [f"communication_type={chosen[0]}", *chosen[1:]]
        return [part for word in words for part in ("-o", word)]

    def mi_options(self, transport: str) -> list[str]:
        fifo = ["-f", f"{self.home}/fifo", "-fb", f"{self.home}/fifo", "-fd", str(self.home)]
        return {
            "fifo": ["-t", "fifo", *fifo],
            "http": ["-t", "http", "-i", "127.0.0.1", "-p", str(self.http)],
            "udp": ["-t", "datagram", "-i", "127.0.0.1", "-p", str(self.udp), "-dt", "5"],
            "unix": ["-t", "datagram", "-ds", f"{self.home}/datagram", "-dt", "5"],
        }[transport]

    @property
    def environment(self) -> dict[str, str]:
        return child_environment({"HOME": str(self.home)})

    def run(self, tool: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program(tool), *words],
            env=self.environment,
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=EVENTUALLY_S,
            check=False,
        )

    def cli(self, transport: str, *words: str) -> Any:
        """Run ``opensips-cli -x mi WORDS``, which must succeed; what it printed, decoded."""
        done = self.run("opensips-cli", *self.cli_options(transport), "-x", "mi", *words)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def refusal(self, transport: str, *words: str) -> str:
        """Do the same where it must fail; what it said."""
        done = self.run("opensips-cli", *self.cli_options(transport), "-x", "mi", *words)
        assert done.returncode != 0, done.stdout
        return done.stderr

    def state(self) -> State:
        return self.context.nodes.view(KEY).nodes[2].state

    def ask(self, number: int, request: str) -> bytes:
        """Write ``request`` to the FIFO, REPLY in it being the reply's name; return the reply."""
        path = self.home / f"reply{number}"
        os.mkfifo(path)
        with ThreadPoolExecutor(1) as thread:
            answer = thread.submit(path.read_bytes)
            with (self.home / "fifo").open("w") as fifo:
                fifo.write(request.replace("REPLY", path.name))
            return answer.result(EVENTUALLY_S)


@pytest.fixture
def site(
    request: pytest.FixtureRequest, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    home = tmp_path_factory.mktemp("mi")  # short: a unix socket's path has 108 bytes at most
    settings = Settings(redis_url=redis_url, data_dir=str(home / "data"), server_id=1)
    context = Context(settings)
    provision(context, NODE_A, NODE_B)
    reload.run(context)
    http, udp = free_port(), free_port() if "udp" in request.node.name else None
    served = ["--fifo", str(home / "fifo"), "--reply-dir", str(home), "--http", str(http)]
    served += ["--datagram", str(udp or home / "datagram")]
    with spawn(["-m", "clusterer", "mi", *served], as_environment(settings)) as server:
        server.wait_for_output("mi datagram: listening on")
        yield Site(context, server, home, http, udp)
        assert server.returncode is None
    context.close()


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_opensips_cli_works_unchanged(site: Site, transport: str) -> None:
    (cluster,) = site.cli(transport, "clusterer_list")["Clusters"]
    assert cluster["cluster_id"] == 1
    (node,) = cluster["Nodes"]
    assert (node["node_id"], node["url"], node["description"]) == (2, NODE_B.url, "Node B")
    assert (node["state"], node["link_state"], node["next_hop"]) == (1, "Up", "2")

    assert site.cli(transport, "clusterer_set_status", "1", "2", "0") == "OK"
    assert site.state() is State.DOWN
    assert (
        f"(mi {'datagram' if transport in ('udp', 'unix') else transport}"
        in (events(site.context)[-1]["by"])
    )
    (node,) = site.cli(transport, "clusterer:list")["Clusters"][0]["Nodes"]
    assert (node["state"], node["link_state"], node["next_hop"]) == (0, "Down", "none")

    named = ("cluster_id=1", "node_id=2", "status=1")
    assert site.cli(transport, "clusterer_set_status", *named) == "OK"
    assert site.state() is State.UP
    assert site.cli(transport, "clusterer_set_status", "1", "2", "0", "bin") == "OK"
    assert site.cli(transport, "clusterer_reload") == "OK"
    assert site.state() is State.UP, "as in the table"

    assert "-32602: Invalid params" in site.refusal(transport, "clusterer_set_status", "1", "0")
    assert "no node 9" in site.refusal(transport, "clusterer_set_status", "1", "9", "0")
    sql(site.context, "DROP TABLE clusterer")
    assert "500: Failed to reload" in site.refusal(transport, "clusterer_reload")
    warnings = [line for line in site.server.output().splitlines() if " WARNING " in line]
    assert all("reaches 127.0.0.1:" in line for line in warnings), "opensips-cli connects twice"


def test_opensips_cli_prints_what_the_page_shows(site: Site) -> None:
    for (tool, *words), on_page in sessions(docs.section("mi.md", "With OpenSIPS 3's tools")):
        transport = "http" if "communication_type=http" in words else "fifo"
        done = site.run(tool, *site.cli_options(transport), *words)
        assert (done.stdout.strip(), done.stderr) == (on_page.strip(), "")


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_opensips_cli_is_told_what_there_is(site: Site, transport: str) -> None:
    assert site.cli(transport, "which") == NAMES
    assert site.cli(transport, "which", "clusterer_list") == [[]]
    assert site.cli(transport, "which", "clusterer:set_status") == [
        ["cluster_id", "node_id", "status"],
        ["cluster_id", "node_id", "status", "protocol"],
    ]
    assert "404: unknown MI command" in site.refusal(transport, "which", "nosuch")
    assert "no command 'nosuch' in module 'mi'" in site.refusal(transport, "nosuch")


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_opensips_mi_works_unchanged(site: Site, transport: str) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return site.run("opensips-mi", *site.mi_options(transport), *words)

    assert json.loads(run("clusterer_set_status", "1", "2", "0").stdout) == "OK"
    assert site.state() is State.DOWN
    up = json.dumps({"cluster_id": 1, "node_id": 2, "status": 1})
    assert json.loads(run("clusterer_set_status", "-j", up).stdout) == "OK"
    assert site.state() is State.UP
    assert run("--bash-complete", "commands").stdout.split() == NAMES
    failed = run("nosuch")
    assert failed.returncode == 1
    assert "-32601: Method not found (nosuch)" in failed.stdout


def test_opensips_cli_completes_commands_and_parameters(site: Site) -> None:
    words = [program("opensips-cli"), *site.cli_options("http")]
    with Dialogue(words, site.environment) as terminal:
        terminal.wait_for("(opensips-cli):")
        terminal.type("mi clusterer_s\t")
        terminal.wait_for("mi clusterer_set_status ")
        terminal.type("cluster_id=1 n\t")
        terminal.wait_for("node_id=")
        terminal.type("2 status=0\n")
        wait_until(lambda: site.state() is State.DOWN)
        terminal.type("quit\n")


def test_mi_fifo_serves_lines_and_json_together(site: Site) -> None:
    rpc = ':REPLY:{"jsonrpc": "2.0", "id": "NUMBER", "method": "clusterer_reload"}'
    lines = ":nosuchNUMBER:REPLY\n\n"

    def ask(number: int) -> bytes:
        return site.ask(number, (rpc, lines)[number % 2].replace("NUMBER", str(number)))

    with ThreadPoolExecutor(20) as threads:
        for number, answer in enumerate(threads.map(ask, range(60))):
            if number % 2:
                assert answer == f"500 command 'nosuch{number}' not available\n".encode()
            else:
                wanted = {"jsonrpc": "2.0", "id": str(number), "result": "OK"}
                assert json.loads(answer) == wanted


def test_mi_fifo_json_invalid_or_notification_has_no_reply(site: Site) -> None:
    assert json.loads(site.ask(1, ":REPLY:{'single': 1}"))["error"]["code"] == -32700
    cut = json.loads(site.ask(2, ':REPLY:{"jsonrpc": "2.0", '))["error"]
    assert (cut["code"], cut["data"]) == (-32700, "JSON-RPC: its JSON has no end")
    down = '{"jsonrpc": "2.0", "method": "clusterer_set_status", "params": [1, 2, 0]}'
    assert site.ask(3, f":REPLY:{down}") == b"", "the end of the file ends the client's wait"
    assert site.state() is State.DOWN
    with (site.home / "fifo").open("w") as fifo:
        fifo.write("::" + down.replace("0]", "1]"))
    wait_until(lambda: site.state() is State.UP)
    with (site.home / "fifo").open("w") as fifo:
        fifo.write(f":../stolen:{down}")
    site.server.wait_for_output("must be a plain name")
    assert site.state() is State.UP, "not carried out"


@pytest.mark.parametrize("transport", ["udp", "unix"])
def test_mi_datagram_reply_too_long_is_error(site: Site, transport: str) -> None:
    provision(site.context, *(NewRow(1, n, f"bin:127.0.1.1:{n}") for n in range(3, 403)))
    assert site.cli(transport, "clusterer_reload") == "OK"
    assert "ask over HTTP or the FIFO" in site.refusal(transport, "clusterer_list")
    for roomy in ("http", "fifo"):
        assert len(site.cli(roomy, "clusterer_list")["Clusters"][0]["Nodes"]) == 401
