"""Output of commands in the docs, compared with a run of each command."""

from __future__ import annotations

import re
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clusterer.cli import main, output
from clusterer.membership import Event, State
from clusterer.provisioning.table import NewRow
from clusterer.services import Context
from clusterer.services.status.node_list import NodeList
from clusterer.services.status.sums import of_pairs
from clusterer.services.status.traffic import Traffic
from clusterer.services.table import init_db
from clusterer.store import Cause, ClusterKey, ClusterView, keys
from clusterer.store.links import LinkRecord, LinkStore
from clusterer.store.packets import PacketLog
from clusterer.store.receipts import Receipts
from clusterer.store.sessions import SessionStore
from clusterer.store.watches import Watch
from tests.support import docs, provisioning, transcripts
from tests.support.broken_paths import break_path, check_path, heal_path, node_of
from tests.support.cluster import load, take_lease
from tests.support.frames import frame
from tests.support.provisioning import contexts, provision, sql
from tests.support.seeding import make_node
from tests.support.story import DATABASE
from tests.support.transcripts import sessions

NODE_A = make_node(1, port=5566, description="Node A")
NODE_B = make_node(2, port=5566, description="Node B")

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _embedded(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTERER_REDIS_URL", redis_url)
    monkeypatch.setenv("CLUSTERER_DATA_DIR", str(tmp_path))


@pytest.fixture
def run(tmp_path: Path, capsys: Capture) -> Callable[[list[str]], str]:
    """Run a command line of the docs; what it prints, with the docs' database."""

    def printed(words: list[str]) -> str:
        assert words[0] == "clusterer"
        capsys.readouterr()
        main(words[1:])
        captured = capsys.readouterr()
        return (captured.out + captured.err).replace(f"sqlite:///{tmp_path}/clusterer.db", DATABASE)

    return printed


Run = Callable[[list[str]], str]


@pytest.fixture
def context(redis_url: str, tmp_path: Path) -> Iterator[Context]:
    with contexts(redis_url=redis_url, data_dir=str(tmp_path)) as make:
        yield make()


# -- the table -------------------------------------------------------------------------------------


def test_docs_output_of_changing_commands_is_as_shown(run: Run) -> None:
    seen = 0
    for name in ("init-db", "node-add", "node-edit", "node-remove", "set-status", "export"):
        for words, shown in sessions(docs.command_section(name)):
            assert run(words) == shown, words
            seen += 1
        run(["clusterer", "reload"])
    assert seen >= 10


def test_docs_forget_output_is_as_shown(run: Run, context: Context) -> None:
    """Node 1 has sent a packet, registered ratelimit and been silent for two hours."""
    provision(context, provisioning.NODE_A, provisioning.NODE_B)
    run(["clusterer", "reload"])
    PacketLog(context.settings, 1).append(provisioning.KEY, [frame(0, sender=1)])
    store = SessionStore(context.settings, context.settings.delivery_queue, "test")
    assert take_lease(store, 1)
    store.release(1, 1, 2, {}, waiting=False, even_if_pending=False)
    receipts, watch = Receipts(context.settings), Watch(1, "ratelimit", "ratelimit", 1, 0)
    receipts.begin(1, "run")
    receipts.register(watch, "run", [1, 2])
    then = int((context.nodes.now() - 7260) * 1000)
    context.redis.hset(keys.modules(1), mapping={"begun": then, "heartbeat": then})
    context.redis.hset(keys.stats(1), "1/2/1/sent", 1)
    for words, shown in sessions(docs.command_section("forget")):
        assert run(words) == shown, words


def test_docs_reload_output_is_as_shown(run: Run, context: Context) -> None:
    """Node 2 has failed once, and has another port in the table; rows 4 to 7 are bad."""
    provision(context, provisioning.NODE_A, provisioning.NODE_B)
    run(["clusterer", "reload"])
    context.nodes.command(provisioning.KEY, 2, Event.SUSPECTED, Cause("test"))
    sql(context, "UPDATE clusterer SET url = 'bin:127.0.0.2:5577' WHERE machine_id = 2")
    urls = {3: "bin:127.0.0.3:5566", 4: "tls:127.0.0.4", -5: "bin:127.0.0.5:5566"}
    urls |= {6: "bin:nohost.invalid:5566", 7: "127.0.0.7:5566"}
    init_db.add(context, [NewRow(1, machine_id, url) for machine_id, url in urls.items()])
    assert_shown(run, "reload", "clusterer reload")


def test_docs_reload_dry_run_output_is_as_shown(run: Run, context: Context) -> None:
    more = [NewRow(1, 3, "bin:127.0.0.3:5566"), NewRow(1, 4, "bin:127.0.0.7:5566")]
    provision(context, provisioning.NODE_A, provisioning.NODE_B, *more)
    run(["clusterer", "reload"])
    init_db.add(context, [NewRow(1, -5, "bin:127.0.0.5:5566")])
    sql(context, "DELETE FROM clusterer WHERE machine_id = 4")
    sql(context, "UPDATE clusterer SET duration = 7 WHERE machine_id = 2")
    sql(context, "UPDATE clusterer SET url = '127.0.0.33:5566' WHERE machine_id = 3")
    assert_shown(run, "reload", "clusterer reload --dry-run")


def assert_shown(run: Run, name: str, line: str) -> None:
    """Why a name is not resolved is in the C library's words."""
    ours, page = run(shlex.split(line)), transcripts.shown(docs.command_section(name), line)
    assert re.sub("(not resolve: ).*", r"\1", ours) == re.sub("(not resolve: ).*", r"\1", page)


def test_docs_import_output_is_as_shown(
    run: Run, context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is the page's, and so is the way in which a line is taken out of the file."""
    monkeypatch.chdir(tmp_path)
    provision(context, provisioning.NODE_A, provisioning.NODE_B, NewRow(1, 3, "bin:127.0.0.3:5566"))
    for words, shown in sessions(docs.command_section("import")):
        if words[0] == "cat":
            Path(words[1]).write_text(shown, encoding="utf-8")
        elif words[0] == "clusterer":
            assert run(words) == shown, words
        else:
            subprocess.run(words, check=True)


# -- settings, list --------------------------------------------------------------------------------


def test_docs_invalid_setting_message_is_as_shown(capsys: Capture) -> None:
    ((_, *arguments), shown), *_ = sessions(docs.section("parameters.md", "Sources of settings"))
    assert main(arguments) == 1
    assert capsys.readouterr().err == shown


def test_docs_outputs_of_broken_link_are_as_shown(run: Run, context: Context) -> None:
    """Senders 1 and 2 do not reach each other's node, and both have sent to all."""
    settings, names = context.settings, {1: "Node A", 2: "Node B", 3: "Node C"}
    nodes = [
        make_node(i, port=5566, url=f"bin:10.0.0.{i}:5566", host=f"10.0.0.{i}", description=name)
        for i, name in names.items()
    ]
    load(settings, nodes)
    for sender, machine_id in ((1, 2), (1, 3), (2, 1), (2, 3), (3, 1), (3, 2)):
        place = f"1/{machine_id}/{node_of(settings, machine_id).generation}"
        context.redis.hset(keys.stats(sender), f"{place}/sent", 5)
        context.redis.hset(keys.counters(sender), mapping={"sequence": 5, "1:bin": 5})
    break_path(settings, 1, 2, reason="Connection timed out")
    break_path(settings, 2, 1, reason="Connection timed out")
    check_path(settings, 1, 2, "no answer within 0.5 s", times=2)
    check_path(settings, 2, 1, "no answer within 0.5 s")
    page = docs.command_section("list")
    for line in ("clusterer list", "clusterer list --seen-by 1"):
        ours = transcripts.plain(run(shlex.split(line)))
        assert transcripts.is_excerpt(transcripts.plain(transcripts.shown(page, line)), ours), ours
    page = docs.command_section("paths")
    for line in ("clusterer paths", "clusterer paths --sender 1 --json"):
        ours = transcripts.plain(run(shlex.split(line)))
        assert ours == transcripts.plain(transcripts.shown(page, line))
    heal_path(settings, 1, 2)
    line = "clusterer events --paths"
    ours, theirs = (
        transcripts.plain(text)
        for text in (
            run(shlex.split(line)),
            transcripts.shown(docs.command_section("events"), line),
        )
    )
    assert ours == theirs


def test_docs_paths_of_3x_clusters_are_as_shown(run: Run, context: Context) -> None:
    context.redis.sadd(keys.INSTANCES, 11)
    LinkStore(context.settings, context.redis).write(
        11,
        {
            (7, 1): LinkRecord("up", time.time(), 1, (2, 11), {"dialog-dlg-repl": 1}),
            (7, 2): LinkRecord("down", time.time(), 1, (1,), {"dialog-dlg-repl": 0}),
        },
    )
    line = "clusterer paths --cluster 7"
    ours = transcripts.plain(run(shlex.split(line)))
    assert ours == transcripts.plain(transcripts.shown(docs.command_section("paths"), line))


def test_docs_list_output_is_as_shown(capsys: Capture) -> None:
    c = make_node(3, port=5566, description="Node C", state=State.DOWN)
    view = ClusterView.of(ClusterKey(1, "bin"), 1, [NODE_A, NODE_B, c])
    delivered = {"last_delivered": "95000"}
    traffic = (
        Traffic(1, 1, "bin", 2, 298, 0, 0, 0, backlog=0, oldest_s=None, **delivered),
        Traffic(1, 1, "bin", 3, 169, 0, 0, 0, backlog=129, oldest_s=5.2, **delivered),
        Traffic(2, 1, "bin", 1, 86, 1, 19, 0, backlog=0, oldest_s=None, **delivered),
        Traffic(2, 1, "bin", 3, 31, 0, 0, 0, backlog=21, oldest_s=3.0, last_delivered="96000"),
    )
    totals, pairs, *_ = sessions(docs.command_section("list"))
    for (words, shown), with_pairs in ((totals, False), (pairs, True)):
        assert ("--traffic" in words) is with_pairs
        found = NodeList(100.0, 1, (view,), traffic, sums=of_pairs(traffic, (view,), ()))
        output.show(found, pairs=with_pairs)
        lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
        assert lines == shown.splitlines()
