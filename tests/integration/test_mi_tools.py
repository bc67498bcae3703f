"""OpenSIPS 3's own tools, `opensips-cli` and `opensips-mi`, against `clusterer mi`."""

from __future__ import annotations

import json
import os
import select
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import redis

from clusterer.membership import State
from clusterer.provisioning.table import NewRow
from clusterer.services import Context
from clusterer.services.table import reload
from clusterer.settings import Settings, as_environment
from tests.support import docs
from tests.support.ports import free_port
from tests.support.processes import (
    EVENTUALLY_S,
    ChildProcess,
    child_environment,
    die_with_parent,
    spawn,
    unmeasured,
    wait_until,
)
from tests.support.programs import missing
from tests.support.provisioning import KEY, NODE_A, NODE_B, events, provision, sql
from tests.support.redis_server import RedisServer
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


class Shell:
    """An `opensips-cli` that takes one command after the other: its start costs half a second."""

    PROMPT = "(opensips-cli): "

    def __init__(self, words: list[str], env: dict[str, str], home: Path) -> None:
        self._process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=env,
            cwd=home,
            preexec_fn=die_with_parent(),  # noqa: PLW1509 - only system calls between fork and exec
        )
        self._answer()

    def ask(self, *words: str) -> str:
        """Give the command ``mi WORDS``; return what was printed, errors included."""
        assert self._process.stdin
        self._process.stdin.write(f"{shlex.join(['mi', *words])}\n".encode())
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        assert self._process.stdout
        text, deadline = b"", monotonic() + EVENTUALLY_S
        while not text.endswith(self.PROMPT.encode()):
            left_s = max(0.0, deadline - monotonic())
            assert select.select([self._process.stdout], [], [], left_s)[0], text
            chunk = os.read(self._process.stdout.fileno(), 65536)
            assert chunk, f"opensips-cli ended: {text!r}"
            text += chunk
        return text.decode().removesuffix(self.PROMPT)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@dataclass(frozen=True, slots=True)
class Site:
    """A `clusterer mi` that listens everywhere, and how the tools are told where."""

    context: Context
    server: ChildProcess
    home: Path
    http: int
    udp: int | None
    closing: ExitStack
    shells: dict[str, Shell] = field(default_factory=dict)

    def cli_options(self, transport: str) -> list[str]:
        chosen = {
            "fifo": ["fifo", f"fifo_file={self.home}/fifo", f"fifo_reply_dir={self.home}"],
            "http": ["http", f"url=http://127.0.0.1:{self.http}/mi"],
            "udp": ["datagram", "datagram_ip=127.0.0.1", f"datagram_port={self.udp}"],
            "unix": ["datagram", f"datagram_unix_socket={self.home}/datagram"],
        }[transport]
        # opensips-cli waits one second for a datagram, which a reload takes on a busy host.
        waits = f"datagram_timeout={EVENTUALLY_S:g}"
        words = [f"communication_type={chosen[0]}", *chosen[1:], waits]
        return [part for word in words for part in ("-o", word)]

    def mi_options(self, transport: str) -> list[str]:
        waits = ["-dt", f"{EVENTUALLY_S:g}"]
        fifo = ["-f", f"{self.home}/fifo", "-fb", f"{self.home}/fifo", "-fd", str(self.home)]
        return {
            "fifo": ["-t", "fifo", *fifo],
            "http": ["-t", "http", "-i", "127.0.0.1", "-p", str(self.http)],
            "udp": ["-t", "datagram", "-i", "127.0.0.1", "-p", str(self.udp), *waits],
            "unix": ["-t", "datagram", "-ds", f"{self.home}/datagram", *waits],
        }[transport]

    @property
    def environment(self) -> dict[str, str]:
        return unmeasured(child_environment({"HOME": str(self.home)}))

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

    def execute(self, transport: str, *words: str) -> subprocess.CompletedProcess[str]:
        return self.run("opensips-cli", *self.cli_options(transport), "-x", "mi", *words)

    def shell(self, transport: str) -> Shell:
        if transport not in self.shells:
            words = [program("opensips-cli"), *self.cli_options(transport)]
            shell = self.shells[transport] = Shell(words, self.environment, self.home)
            self.closing.callback(shell.close)
        return self.shells[transport]

    def cli(self, transport: str, *words: str) -> Any:
        """Give ``mi WORDS`` to opensips-cli; what it printed, decoded."""
        return json.loads(self.shell(transport).ask(*words))

    def refusal(self, transport: str, *words: str) -> str:
        """Do the same where it must fail; what it said."""
        said = self.shell(transport).ask(*words)
        assert "ERROR" in said
        return said

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
            found = answer.result(EVENTUALLY_S)
        path.unlink()
        return found


@contextmanager
def serving(url: str, home: Path, udp: int | None) -> Iterator[Site]:
    settings = Settings(redis_url=url, data_dir=str(home / "data"), server_id=1)
    http = free_port()
    served = ["--fifo", str(home / "fifo"), "--reply-dir", str(home), "--http", str(http)]
    served += ["--datagram", str(udp or home / "datagram")]
    with (
        closing(Context(settings)) as context,
        spawn(["-m", "clusterer", "mi", *served], as_environment(settings)) as server,
        ExitStack() as stack,
    ):
        server.wait_for_output("mi datagram: listening on")
        yield Site(context, server, home, http, udp, stack)
        assert server.returncode is None


@pytest.fixture(scope="module")
def sites(
    redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[bool], Site]]:
    """Give a site of each kind, made once: with datagrams to a port, and to a unix socket."""
    with ExitStack() as stack:

        @cache
        def made(udp: bool) -> Site:
            home = tmp_path_factory.mktemp(
                "mi"
            )  # short: a unix socket's path has at most 108 bytes
            port = free_port() if udp else None
            return stack.enter_context(serving(redis_server.url, home, port))

        yield made


@pytest.fixture
def site(
    request: pytest.FixtureRequest, sites: Callable[[bool], Site], redis_client: redis.Redis
) -> Site:
    """Give a site with the nodes A and B, and with nothing else in Redis."""
    found = sites("udp" in request.node.name)
    sql(found.context, "DROP TABLE IF EXISTS clusterer")
    provision(found.context, NODE_A, NODE_B)
    reload.run(found.context)
    return found


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_opensips_cli_works_unchanged(site: Site, transport: str) -> None:
    said = len(site.server.output())
    done = site.execute(transport, "clusterer_list")
    assert done.returncode == 0, done.stderr
    (cluster,) = json.loads(done.stdout)["Clusters"]
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

    failed = site.execute(transport, "clusterer_set_status", "1", "0")
    assert failed.returncode != 0, failed.stdout
    assert "-32602: Invalid params" in failed.stderr
    assert "no node 9" in site.refusal(transport, "clusterer_set_status", "1", "9", "0")
    sql(site.context, "DROP TABLE clusterer")
    assert "500: Failed to reload" in site.refusal(transport, "clusterer_reload")
    lines = site.server.output()[said:].splitlines()
    warnings = [line for line in lines if " WARNING " in line]
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
