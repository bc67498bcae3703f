"""node-add, node-edit, node-remove, import, export, reload --dry-run: table and Redis together."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from clusterer.cli import main
from clusterer.errors import InvalidArgument, ProvisioningError, StateUnavailable, UnknownNode
from clusterer.membership import Event, Node, State
from clusterer.provisioning.files import parse, render
from clusterer.provisioning.names import Names
from clusterer.provisioning.table import NewRow
from clusterer.services import Context, provision
from clusterer.services.admin import set_status
from clusterer.services.provision import RowsRejected
from clusterer.services.table import reload
from clusterer.settings import Settings
from clusterer.store import Cause
from clusterer.store.packets import PacketLog
from tests.support.cluster import CLUSTER, delivering, numbers, stat
from tests.support.frames import frame
from tests.support.processes import EVENTUALLY_S, child_environment, unmeasured
from tests.support.provisioning import (
    KEY,
    NODE_A,
    NODE_B,
    MakeContext,
    contexts,
    events,
    sql,
)
from tests.support.provisioning import provision as fill
from tests.support.receiver import BinReceiver

BY = "operator root@sip1"
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def lite(redis_url: str, tmp_path: Path) -> Iterator[Context]:
    url = f"sqlite:///{tmp_path / 'test.db'}"
    with contexts(db_url=url, redis_url=redis_url) as factory:
        context = factory()
        fill(context, NODE_A, NODE_B)
        reload.run(context)
        yield context


def row(machine_id: int, **more: object) -> dict[str, object]:
    url = f"bin:127.0.0.{machine_id}:5566"
    return {"cluster_id": 1, "machine_id": machine_id, "url": url} | more


def node(context: Context, machine_id: int) -> Node:
    return context.nodes.view(KEY).nodes[machine_id]


def table(context: Context) -> list[tuple[object, ...]]:
    return sql(context, "SELECT * FROM clusterer ORDER BY id")


# -- one row ---------------------------------------------------------------------------------------


def test_provision_add_edit_remove_change_table_and_redis(make: MakeContext) -> None:
    context = make()
    fill(context, NODE_A)
    reload.run(context)
    provision.add(context, row(3, description="Node C", duration=7), by=BY)
    assert (node(context, 3).description, node(context, 3).duration) == ("Node C", 7)
    changes = provision.edit(context, (1, 3), {"url": "bin:127.0.0.4:5577"}, by=BY)
    assert changes.changed[0].columns == ("url",)
    assert node(context, 3).address == ("127.0.0.4", 5577)
    provision.remove(context, (1, 3), by=BY)
    assert list(context.nodes.view(KEY).nodes) == [1]
    assert len(table(context)) == 1
    assert [(e["event"], e["by"]) for e in events(context)[1:]] == [
        ("added", BY),
        ("changed", BY),
        ("removed", BY),
    ]
    report = reload.run(context)
    assert (report.unchanged, report.changed) == (1, ())


def test_provision_leaves_other_nodes_and_redis_states(make: MakeContext) -> None:
    context = make()
    fill(context, NODE_A, NODE_B)
    reload.run(context)
    sql(context, "UPDATE clusterer SET duration = 99 WHERE machine_id = 1")
    context.nodes.command(KEY, 2, Event.SET_DOWN, Cause("test"))
    provision.edit(context, (1, 2), {"description": "new"}, by=BY)
    assert (node(context, 2).state, node(context, 2).description) == (State.DOWN, "new")
    assert node(context, 1).duration == 30, "no command asked for that row"
    provision.edit(context, (1, 2), {"state": 0}, by=BY)
    provision.edit(context, (1, 2), {"state": 1}, by=BY)
    assert (node(context, 2).state, node(context, 2).no_tries) == (State.UP, 0)


def test_provision_named_state_applies_though_row_has_it(make: MakeContext) -> None:
    context = make()
    fill(context, NODE_A, NODE_B)
    reload.run(context)
    set_status.run(context, 1, 2, 0, "bin", by=BY)
    changes = provision.edit(context, (1, 2), {"state": 1}, by=BY)
    assert (changes.unchanged, changes.in_effect_again) == (((1, 2),), True)
    assert node(context, 2).state is State.UP
    set_status.run(context, 1, 2, 0, "bin", by=BY)
    provision.edit(context, (1, 2), {"state": 1, "duration": 9}, by=BY)
    assert node(context, 2).state is State.UP
    changes = provision.edit(context, (1, 2), {"state": 1}, by=BY)
    assert (changes.unchanged, changes.in_effect_again) == (((1, 2),), False)


def test_provision_other_protocol_moves_node(lite: Context) -> None:
    provision.edit(lite, (1, 2), {"url": "udp:127.0.0.2:5060"}, by=BY)
    assert [str(key) for key in lite.nodes.clusters()] == ["1:bin", "1:udp"]
    assert list(lite.nodes.view(KEY).nodes) == [1]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (row(3, url="bin:nohost"), "url: 'nohost'"),
        (row(3, url="bin:127.0.0.3:99999"), "url: port '99999'"),
        (row(3, url="nonsense"), "url: "),
        (row(3, url="bin:" + "x" * 62), "url: 66 characters"),
        (row(3, description="x" * 65), "description: 65 characters"),
        (row(3, description="a\nb"), "description: has a line break"),
        (row(3, duration=-1), "duration: "),
        (row(0), "machine_id: "),
        (row(2), "has a node 2 already, in row 2"),
    ],
)
def test_provision_row_that_reload_rejects_is_not_written(
    lite: Context, values: dict[str, object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lookup(name: str) -> list[str]:
        if name.startswith("xxx"):
            return ["127.0.0.3"]
        raise OSError(-2, "Name or service not known")

    before = table(lite)
    with pytest.raises(InvalidArgument, match=message):
        provision.add(lite, values, by=BY, names=Names(lookup))
    assert table(lite) == before
    assert len(events(lite)) == 2


def test_provision_unknown_row_raises_and_bad_row_is_editable(lite: Context) -> None:
    with pytest.raises(UnknownNode, match="has no node 9 in cluster 1"):
        provision.edit(lite, (1, 9), {"duration": 1}, by=BY)
    with pytest.raises(UnknownNode):
        provision.remove(lite, (1, 9), by=BY)
    sql(lite, "INSERT INTO clusterer (cluster_id, machine_id, url) VALUES (1, 3, 'nonsense')")
    provision.edit(lite, (1, 3), {"url": "bin:127.0.0.3:5566"}, by=BY)
    assert node(lite, 3).host == "127.0.0.3"
    sql(lite, "UPDATE clusterer SET url = 'nonsense' WHERE machine_id = 3")
    provision.remove(lite, (1, 3), by=BY)
    assert len(table(lite)) == 2


def test_provision_without_redis_leaves_table(lite: Context) -> None:
    before = table(lite)
    away = Context(replace(lite.settings, redis_url="unix:///nowhere/redis.sock"))
    with pytest.raises(StateUnavailable):
        provision.add(away, row(3), by=BY)
    away.close()
    assert table(lite) == before


# -- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_provision_export_then_import_round_trips(make: MakeContext, kind: str) -> None:
    context = make()
    odd = NewRow(2, 3, "bin:[::1]:5566", State.DOWN, 9, 0, 'a, "b" ü; ')
    fill(context, NODE_B, NODE_A, odd)
    before = [tuple(r)[1:] for r in table(context)]
    text = render(provision.export(context), kind)
    sql(context, "DELETE FROM clusterer")
    changes = provision.import_rows(context, parse(text), by=BY)
    assert (len(changes.added), changes.changed) == (3, ())
    assert render(provision.export(context), kind) == text
    after = [tuple(r)[1:] for r in table(context)]
    assert [r[:8] for r in after] == [r[:8] for r in before]
    assert len(context.nodes.view(KEY).nodes) == 2
    again = provision.import_rows(context, parse(text), by=BY)
    assert (len(again.unchanged), again.added, again.changed) == (3, (), ())


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_provision_import_of_unchanged_rows_is_accepted(lite: Context, kind: str) -> None:
    sql(
        lite, "UPDATE clusterer SET description = 'two' || char(10, 13, 27) || 'lines' WHERE id = 1"
    )
    sql(lite, "UPDATE clusterer SET description = hex(zeroblob(100)) WHERE id = 2")
    reload.run(lite)
    before = table(lite)
    text = render(provision.export(lite), kind)
    assert len(provision.import_rows(lite, parse(text, kind), by=BY).unchanged) == 2
    assert table(lite) == before
    assert node(lite, 1).description == "two lines"


def test_import_adds_and_changes_and_with_replace_removes(lite: Context) -> None:
    text = "cluster_id,machine_id,url,duration\n1,2,bin:127.0.0.2:5566,7\n1,3,bin:127.0.0.3:1,8\n"
    before = table(lite)
    dry = provision.import_rows(lite, parse(text), by=BY, replace=True, dry_run=True)
    assert table(lite) == before
    changes = provision.import_rows(lite, parse(text), by=BY)
    assert ([c.row_key for c in changes.added], changes.removed) == ([(1, 3)], ())
    assert changes.changed[0].columns == ("duration",)
    assert node(lite, 2).description == "Node B", "columns that are left out stay"
    assert list(lite.nodes.view(KEY).nodes) == [1, 2, 3]
    replaced = provision.import_rows(lite, parse(text), by=BY, replace=True)
    assert [c.row_key for c in replaced.removed] == [c.row_key for c in dry.removed] == [(1, 1)]
    assert list(lite.nodes.view(KEY).nodes) == [2, 3]


def test_import_bad_rows_are_named_and_nothing_is_written(lite: Context) -> None:
    lines = ["cluster_id,machine_id,url", "1,7,bin:127.0.0.7:1", "1,8,nonsense", ",9,bin:h:1"]
    lines += ["1,7,bin:127.0.0.8:1", "1,10," + "bin:127.0.0.1:" + "1" * 60]
    before = table(lite)
    with pytest.raises(RowsRejected, match="4 of 5 rows") as caught:
        provision.import_rows(lite, parse("\n".join(lines)), by=BY)
    assert [(item.id, item.column) for item in caught.value.rejected] == [
        (3, "url"),
        (4, "cluster_id"),
        (5, "machine_id"),
        (6, "url"),
    ]
    assert table(lite) == before


def test_import_database_failing_midway_keeps_nothing(lite: Context) -> None:
    sql(
        lite,
        "CREATE TRIGGER t BEFORE INSERT ON clusterer WHEN NEW.machine_id = 9 "
        "BEGIN SELECT RAISE(ABORT, 'no nines'); END",
    )
    before = table(lite)
    rows = parse(json.dumps([row(2, duration=1), row(8), row(9)]))
    with pytest.raises(ProvisioningError, match="no nines"):
        provision.import_rows(lite, rows, by=BY)
    assert table(lite) == before
    assert list(lite.nodes.view(KEY).nodes) == [1, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("cluster_id,machine_id\n1,2\n", "column 'url' is missing"),
        ("cluster_id,machine_id,url,colour\n1,2,x,red\n", "no such column: 'colour'"),
        ("cluster_id,machine_id,url,url\n", "names a column twice"),
        ("cluster_id,machine_id\n", "line 1: column 'url' is missing"),
        ("\n\nname\n", "line 3: no such column: 'name'"),
        ("cluster_id,machine_id,url\n1,2\n", "line 2 has 2 cells, the heading 3"),
        ('cluster_id,machine_id,url\n1,2,"x\n', "is no CSV"),
        ("[{", "this is no JSON"),
        ('{"a": 1}', "must be a list"),
        ("[1]", "must be a list"),
        ('[{"url": "a", "url": "b"}]', "an object has 'url' twice"),
        ('[{"duration": NaN}]', "NaN is no number"),
        ("cluster_id,,machine_id,url\n", "no such column: ''"),
        ("cluster_id,machine_id,url,,\n1,2,bin:a,,x\n", "line 2 has 5 cells, the heading 3"),
    ],
)
def test_import_file_of_other_format_is_named(text: str, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        parse(text)


@pytest.mark.parametrize("mark", [",", ";", "\t"])
@pytest.mark.parametrize("before", ["", "\ufeff", "\r\n\r\n", "\ufeff;;\r\n"])
def test_import_csv_of_spreadsheets_is_read(mark: str, before: str) -> None:
    head, line = ("cluster_id", "machine_id", "url"), ("1", "2", '"bin:192.0.2.1:5566"')
    text = before.replace(";", mark) + mark.join(head) + "\r\n" + mark.join(line) + "\r\n"
    assert parse(text)[0].values == dict(zip(head, ("1", "2", "bin:192.0.2.1:5566"), strict=True))


def test_import_file_without_rows_replaces_nothing(lite: Context) -> None:
    """The file lost its rows on the way."""
    for text in ("cluster_id,machine_id,url\n", "[]"):
        with pytest.raises(InvalidArgument, match="has no rows"):
            provision.import_rows(lite, parse(text), by=BY, replace=True)
    assert len(table(lite)) == 2


def test_import_value_that_is_no_text_is_refused(lite: Context) -> None:
    with pytest.raises(RowsRejected) as caught:
        provision.import_rows(lite, parse(json.dumps([row(3, description="\ud800")])), by=BY)
    assert str(caught.value.rejected[0]) == "row 1, column 'description': is not UTF-8"


@pytest.mark.parametrize("value", [True, ["a"], {"a": 1}])
def test_import_description_stays_text(lite: Context, value: object) -> None:
    with pytest.raises(RowsRejected) as caught:
        provision.import_rows(lite, parse(json.dumps([row(3, description=value)])), by=BY)
    assert str(caught.value.rejected[0]) == "row 1, column 'description': is no text"


def test_import_number_of_thousands_of_digits_is_refused(lite: Context) -> None:
    text = json.dumps([row(3)]).replace('"machine_id": 3', '"machine_id": ' + "9" * 5000)
    with pytest.raises(RowsRejected) as caught:
        provision.import_rows(lite, parse(text), by=BY)
    assert caught.value.rejected[0].column == "machine_id"
    assert len(caught.value.rejected[0].reason) < 250


def test_import_empty_trailing_columns_are_ignored(lite: Context) -> None:
    rows = parse("cluster_id;machine_id;url;;\r\n1;3;bin:127.0.0.3:1;;\r\n1;4;bin:127.0.0.4:1\r\n")
    assert len(provision.import_rows(lite, rows, by=BY).added) == 2


def test_import_machine_id_in_any_notation_is_found(lite: Context) -> None:
    text = json.dumps([{"cluster_id": 1.0, "machine_id": " 2", "url": "bin:127.0.0.2:5566"}])
    sql(lite, "UPDATE clusterer SET duration = 7 WHERE machine_id = 2")
    changes = provision.import_rows(lite, parse(text), by=BY)
    assert (changes.unchanged, changes.changed) == (((1, 2),), ())


def test_import_true_as_number_is_refused(lite: Context) -> None:
    with pytest.raises(RowsRejected) as caught:
        provision.import_rows(lite, parse(json.dumps([row(3, state=True)])), by=BY)
    assert caught.value.rejected[0].column == "state"


# -- reload ----------------------------------------------------------------------------------------


def test_import_dry_run_changes_nothing(lite: Context) -> None:
    sql(lite, "UPDATE clusterer SET duration = 7 WHERE machine_id = 1")
    sql(lite, "DELETE FROM clusterer WHERE machine_id = 2")
    sql(lite, "INSERT INTO clusterer (cluster_id, machine_id, url) VALUES (1, 3, 'bin:127.0.0.3')")
    before = {key: lite.redis.dump(key) for key in lite.redis.scan_iter()}
    report = reload.preview(lite)
    assert {key: lite.redis.dump(key) for key in lite.redis.scan_iter()} == before
    done = reload.run(lite)
    assert [n.machine_id for n in done.added] == [n.machine_id for n in report.added] == [3]
    assert [n.machine_id for n in done.removed] == [n.machine_id for n in report.removed] == [2]
    assert report.changed[0].columns == done.changed[0].columns == ("duration",)


def test_provision_reload_under_traffic_loses_nothing(redis_url: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'test.db'}"
    settings = Settings(redis_url=redis_url, db_url=url, linger=EVENTUALLY_S)
    context = Context(settings)
    with BinReceiver() as peer, delivering(settings):
        fill(context, NODE_A, NewRow(1, 2, peer.url))
        reload.run(context)
        generation, log = node(context, 2).generation, PacketLog(settings, 1)
        for number in range(3000):
            log.append(CLUSTER, [frame(number)])
            if number % 300 == 150:
                sql(context, "UPDATE clusterer SET description = COALESCE(description, '') || 'v'")
                assert len(reload.run(context).changed) == 2
            elif number % 300 == 0:
                provision.edit(context, (1, 2), {"duration": 30 + number}, by=BY)
                provision.add(context, row(9, url="bin:127.0.0.9:9", state=0), by=BY)
                provision.remove(context, (1, 9), by=BY)
        peer.wait_for_frames(3000)
        assert numbers(peer) == list(range(3000))
        assert node(context, 2).generation == generation
        assert len(peer.connections) == 1
    assert stat(context.redis, 2, "sent") == 3000
    assert stat(context.redis, 2, "skipped") == 0
    context.close()


# -- as an operator sees them ----------------------------------------------------------------------


@pytest.fixture
def shell(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> Path:
    monkeypatch.setenv("CLUSTERER_REDIS_URL", redis_url)
    monkeypatch.setenv("CLUSTERER_DATA_DIR", str(tmp_path))
    assert main(["init-db", "--example"]) == 0
    assert main(["reload"]) == 0
    capsys.readouterr()
    return tmp_path


def test_provision_commands_print_what_changed(shell: Path, capsys: Capture) -> None:
    assert main(["node-add", "1", "3", "bin:127.0.0.3:5566", "--description", "Node C"]) == 0
    assert main(["node-edit", "1", "3", "--duration", "7", "--description", ""]) == 0
    assert main(["node-edit", "1", "3", "--duration", "7"]) == 0
    assert main(["node-remove", "1", "3"]) == 0
    added, changed, same, removed = capsys.readouterr().out.splitlines()
    assert added.startswith("Added to table clusterer in sqlite:")
    assert "(duration 30 → 7, description Node C → empty)" in changed
    assert "has these values already" in same
    assert removed.endswith("cluster 1, node 3: bin:127.0.0.3:5566.")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["node-add", "1", "2", "bin:127.0.0.2:5566"], 1, "`clusterer node-edit` changes the row"),
        (["node-add", "1", "3", "nonsense"], 1, "clusterer: url: "),
        (["node-add", "1", "x", "bin:127.0.0.2:5566"], 2, "Usage"),
        (["node-edit", "1", "2"], 2, "Nothing to change"),
        (["node-edit", "1", "9", "--duration", "1"], 1, "has no node 9 in cluster 1"),
        (["node-remove", "1", "9"], 1, "has no node 9 in cluster 1"),
        (["import", "/nowhere.csv"], 1, "cannot read /nowhere.csv: No such file"),
        (["export", "/nowhere/x.csv"], 1, "cannot write /nowhere/x.csv: No such file"),
    ],
)
def test_provision_errors_are_one_line(
    shell: Path, capsys: Capture, arguments: list[str], code: int, message: str
) -> None:
    assert main(arguments) == code
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""
    assert code == 2 or captured.err.count("\n") == 1


def test_export_and_import_commands_round_trip(shell: Path, capsys: Capture) -> None:
    assert main(["export"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "1,1,bin:127.0.0.1:5566,1,0,3,0,30,Node A"
    file = shell / "nodes.json"
    assert main(["export", str(file)]) == 0
    assert json.loads(file.read_text())[1]["description"] == "Node B"
    file.write_text(file.read_text().replace("Node B", "Node Z"))
    assert main(["import", "--dry-run", str(file)]) == 0
    assert main(["import", str(file)]) == 0
    out = capsys.readouterr().out
    assert "Would import into table" in out
    assert out.count("0 added, 1 changed, 0 removed, 1 unchanged") == 2
    assert "(description Node B → Node Z)" in out
    file.write_text(file.read_text().replace("bin:127.0.0.2:5566", "bin:127.0.0.2:x"))
    assert main(["import", str(file)]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert errors[0].startswith("  rejected row 2, column 'url': port 'x'")
    assert errors[1] == "clusterer: nothing is imported: 1 of 2 rows cannot be used"


def test_export_on_full_disk_leaves_file_unchanged(shell: Path, redis_url: str) -> None:
    many = [row(machine_id, description="x" * 60) for machine_id in range(3, 200)]
    assert main(["export", str(shell / "nodes.csv")]) == 0
    before = (shell / "nodes.csv").read_bytes()
    (shell / "many.json").write_text(json.dumps(many), encoding="utf-8")
    assert main(["import", str(shell / "many.json")]) == 0
    env = {"CLUSTERER_REDIS_URL": redis_url, "CLUSTERER_DATA_DIR": str(shell)}
    command = f"ulimit -f 8; exec {sys.executable} -m clusterer export {shell / 'nodes.csv'}"
    ended = subprocess.run(
        ["/bin/sh", "-c", command],
        env=unmeasured(child_environment(env)),  # its file would not fit either
        capture_output=True,
        timeout=EVENTUALLY_S,
        check=False,
        text=True,
    )
    assert (ended.returncode, ended.stderr) == (
        1,
        f"clusterer: cannot write {shell / 'nodes.csv'}: File too large\n",
    )
    assert (shell / "nodes.csv").read_bytes() == before
    assert not [path for path in shell.iterdir() if path.name.startswith(".nodes")]


def test_export_keeps_kind_and_mode_of_file(shell: Path) -> None:
    real, link = shell / "real.csv", shell / "link.csv"
    real.write_text("old", encoding="utf-8")
    real.chmod(0o604)
    link.symlink_to(real)
    assert main(["export", str(link)]) == 0
    assert link.is_symlink()
    assert real.read_text(encoding="utf-8").startswith("cluster_id,")
    assert real.stat().st_mode & 0o777 == 0o604


def test_import_line_not_utf8_is_named(shell: Path, capsys: Capture) -> None:
    file = shell / "nodes.csv"
    file.write_bytes(b"cluster_id,machine_id,url,description\n1,3,bin:127.0.0.3:1,Zo\xeb\n")
    assert main(["import", str(file)]) == 1
    assert "line 2 is not UTF-8: save the file as UTF-8" in capsys.readouterr().err


def test_provision_terminal_not_utf8_gets_replacements(shell: Path, redis_url: str) -> None:
    description = "Köln → Bonn"
    environment = child_environment(
        {
            "CLUSTERER_REDIS_URL": redis_url,
            "CLUSTERER_DATA_DIR": str(shell),
            "PYTHONIOENCODING": "latin-1",
        }
    )

    def shown(*arguments: str) -> bytes:
        command = [sys.executable, "-m", "clusterer", *arguments]
        done = subprocess.run(command, stdout=subprocess.PIPE, env=environment, check=True)
        return done.stdout

    edited = shown("node-edit", "1", "2", "--description", description)
    assert edited.endswith("(description Node B ? Köln ? Bonn).\n".encode("latin-1"))
    assert "Köln ? Bonn".encode("latin-1") in shown("list")
    assert description.encode() in shown("export"), "a file that import reads is UTF-8"


def test_reload_dry_run_logs_no_reload(lite: Context, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    reload.preview(lite)
    assert "reloaded" not in caplog.text
    reload.run(lite)
    assert ": reloaded: " in caplog.text


def test_reload_dry_run_shows_old_and_new(shell: Path, capsys: Capture) -> None:
    context = Context(Settings(data_dir=str(shell)))
    sql(context, "UPDATE clusterer SET duration = 7, state = 0 WHERE machine_id = 1")
    sql(context, "DELETE FROM clusterer WHERE machine_id = 2")
    sql(context, "INSERT INTO clusterer (cluster_id, machine_id, url) VALUES (1, 3, 'nonsense')")
    for _ in range(2):
        assert main(["reload", "--dry-run"]) == 0
        out = capsys.readouterr().out
        assert out.startswith("Would load 1 of 2 rows")
        assert "bin:127.0.0.1:5566 (state 1 → 0, duration 30 → 7)" in out
        assert "  removed  cluster 1, node 2" in out
        assert "  rejected row 2, column 'url'" in out
