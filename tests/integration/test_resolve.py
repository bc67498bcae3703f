"""Names in nodes' URLs are resolved again while all runs."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clusterer.listener.ports import Ports
from clusterer.membership import Event, State
from clusterer.provisioning.names import Names
from clusterer.provisioning.table import NewRow
from clusterer.services import Context, provision
from clusterer.services.doctor import table
from clusterer.services.doctor.finding import Level
from clusterer.services.periodic import sweep
from clusterer.services.table import reload, resolve
from clusterer.store import Cause, ClusterKey
from tests.support.cluster import node
from tests.support.processes import EVENTUALLY_S, LATE_S, child_environment, spawn, wait_until
from tests.support.provisioning import KEY, contexts, edit, events
from tests.support.provisioning import provision as fill

Answers = dict[str, list[str]]


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    """The answers of the system's resolver; a missing name does not exist."""
    known: Answers = {"sip2.example": ["192.0.2.2"]}
    real = socket.getaddrinfo

    def lookup(host: str, *arguments: object, **named: object) -> object:
        if not str(host).endswith(".example"):
            return real(host, *arguments, **named)  # type: ignore[arg-type]
        if host not in known:
            raise socket.gaierror(-2, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (found, 0)) for found in known[host]]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    return known


@pytest.fixture
def context(redis_url: str, tmp_path: Path, answers: Answers) -> Iterator[Context]:
    """Node 1 has an address, node 2 a name."""
    with contexts(redis_url=redis_url, data_dir=str(tmp_path), resolve_interval=0.1) as make:
        made = make()
        fill(made, NewRow(1, 1, "bin:127.0.0.1:5566"), NewRow(1, 2, "bin:sip2.example:5566"))
        reload.run(made)
        yield made


def host(context: Context, machine_id: int = 2, key: ClusterKey = KEY) -> str:
    return context.nodes.view(key).nodes[machine_id].host


def test_name_that_leads_elsewhere_moves_its_node(context: Context, answers: Answers) -> None:
    context.nodes.command(KEY, 2, Event.SET_DOWN, Cause("test"))
    before = context.nodes.view(KEY).nodes[2]
    answers["sip2.example"] = ["192.0.2.9"]
    (change,) = resolve.run(context)
    after = context.nodes.view(KEY).nodes[2]
    assert (after.host, after.state, after.url) == ("192.0.2.9", State.DOWN, before.url)
    assert after.generation > before.generation, "packets go to another destination"
    assert change.before.host == "192.0.2.2"
    last = events(context)[-1]
    assert (last["machine_id"], last["event"], last["by"]) == ("2", "changed", resolve.BY)
    assert last["reason"] == "address changed: sip2.example 192.0.2.2 -> 192.0.2.9"
    assert resolve.run(context) == [], "once"


def test_reload_says_where_a_name_leads_now(context: Context, answers: Answers) -> None:
    answers["sip2.example"] = ["192.0.2.9"]
    reload.run(context)
    reason = "address changed: sip2.example 192.0.2.2 -> 192.0.2.9"
    assert events(context)[-1]["reason"] == reason


@pytest.mark.parametrize("persistent", [False, True])
def test_resolution_keeps_what_the_table_is_to_get(
    persistent: bool, context: Context, answers: Answers
) -> None:
    """A state not yet written stays unwritten; an edit in SQL is still an edit."""
    context.nodes.command(KEY, 2, Event.SET_DOWN, Cause("test"))
    keys = ["clusterer:1:bin:dirty", "clusterer:1:bin:synced"]
    before = [context.redis.zrange(keys[0], 0, -1), context.redis.hgetall(keys[1])]
    answers["sip2.example"] = ["192.0.2.9"]
    resolve.run(context)
    assert [context.redis.zrange(keys[0], 0, -1), context.redis.hgetall(keys[1])] == before
    if not persistent:
        edit(context, 2, duration=7)
        reload.run(context)
        assert context.nodes.view(KEY).nodes[2].duration == 7


def test_name_without_a_usable_address_changes_nothing(
    context: Context, answers: Answers, caplog: pytest.LogCaptureFixture
) -> None:
    audited = len(events(context))
    for found in (None, [], ["0.0.0.0"], ["255.255.255.255"]):  # noqa: S104
        answers.pop("sip2.example", None)
        if found is not None:
            answers["sip2.example"] = found
        assert resolve.run(context) == []
    assert host(context) == "192.0.2.2"
    assert len(events(context)) == audited
    said = [r.getMessage() for r in caplog.records if "sip2.example" in r.getMessage()]
    assert len(said) <= 1, "an hour long"


def test_name_server_that_hangs_costs_bounded_time(context: Context) -> None:
    release = threading.Event()

    def hang(name: str) -> list[str]:
        release.wait(EVENTUALLY_S)
        raise OSError

    begun = time.monotonic()
    assert resolve.run(context, Names(hang, timeout_s=0.5)) == []
    assert time.monotonic() - begun < 5 + LATE_S
    release.set()
    assert host(context) == "192.0.2.2"


def test_present_address_stays_among_several(context: Context, answers: Answers) -> None:
    for order in (["192.0.2.1", "192.0.2.2"], ["192.0.2.2", "192.0.2.1"]):
        answers["sip2.example"] = order
        assert resolve.run(context) == []
        reload.run(context)
        provision.edit(context, (1, 2), {"description": order[0]}, by="test")
        assert host(context) == "192.0.2.2"
    answers["sip2.example"] = ["192.0.2.7", "192.0.2.5"]
    resolve.run(context)
    assert host(context) == "192.0.2.5"


def test_sweep_resolves_beside_its_work(context: Context, answers: Answers) -> None:
    sweep.run(context)
    answers["sip2.example"] = ["192.0.2.9"]
    wait_until(lambda: sweep.run(context) or host(context) == "192.0.2.9", message="moved")


def test_sweep_resolves_nothing_at_interval_0(
    context: Context, answers: Answers, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Context] = []
    monkeypatch.setattr(resolve, "start", started.append)
    with contexts(redis_url=redis_url, resolve_interval=0) as make:
        quiet = make()
        for _ in range(3):
            sweep.run(quiet)
    assert started == []


def test_doctor_says_where_a_name_leads(context: Context, answers: Answers) -> None:
    answers["sip2.example"] = ["192.0.2.9"]
    found = next(
        item for item in table.check(context, redis=True) if item.check == "table and redis"
    )
    assert found.level is Level.WARN
    assert (
        "sip2.example (cluster 1:bin node 2) resolves to 192.0.2.9, Redis has 192.0.2.2"
        in found.text
    )
    assert "names are resolved every 0.1 s" in found.advice


@pytest.mark.parametrize(
    ("leads", "said"),
    [
        (["192.0.2.9"], "sip2.example resolves to 192.0.2.9 now"),
        (None, "sip2.example does not resolve: Name or service not known"),
    ],
)
def test_cannot_listen_says_where_the_name_leads(
    leads: list[str] | None, said: str, answers: Answers, caplog: pytest.LogCaptureFixture
) -> None:
    answers.pop("sip2.example")
    if leads is not None:
        answers["sip2.example"] = leads
    ports = Ports(lambda _: asyncio.Protocol())
    with socket.create_server(("127.0.0.1", 0)) as taken, caplog.at_level(logging.WARNING):
        row = node(2, taken.getsockname()[1], url="bin:sip2.example:5566")
        asyncio.run(_follow(ports, row.host, row.port, row))
    assert said in caplog.text


async def _follow(ports: Ports, address: str, port: int, row: object) -> None:
    await ports.follow({(address, port): row})  # type: ignore[dict-item]
    ports.close()


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs a mount namespace"
)
def test_worker_follows_the_hosts_file(redis_url: str, tmp_path: Path) -> None:
    """A real worker and scheduler, and the C library's resolver."""
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost\n192.0.2.2 sip2.test\n")
    script = f'mount --bind {hosts} /etc/hosts && exec "$@"'
    inside = ["unshare", "-m", "sh", "-c", script, "sh", sys.executable, "-m", "clusterer"]
    become = "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])"
    environment = child_environment() | {
        "CLUSTERER_REDIS_URL": redis_url,
        "CLUSTERER_DATA_DIR": str(tmp_path),
        "CLUSTERER_RESOLVE_INTERVAL": "1",
    }
    for words in (["init-db"], ["node-add", "1", "2", "bin:sip2.test:5566"]):
        subprocess.run([*inside, *words], env=environment, check=True, timeout=60)
    with (
        contexts(redis_url=redis_url) as make,
        spawn(["-c", become, *inside, "worker", "maintenance"], environment),
        spawn(["-c", become, *inside, "scheduler"], environment),
    ):
        context = make()
        assert host(context) == "192.0.2.2"
        hosts.write_text("127.0.0.1 localhost\n192.0.2.9 sip2.test\n")
        wait_until(lambda: host(context) == "192.0.2.9", message="the node moves")
        reason = "address changed: sip2.test 192.0.2.2 -> 192.0.2.9"
        assert events(context)[-1]["reason"] == reason
