"""Loading the table into Redis: what the reports, the hashes and the audit say."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis

from clusterer.errors import ProvisioningError, StateUnavailable
from clusterer.membership import Condition, Event, State
from clusterer.provisioning.names import Names
from clusterer.provisioning.rows import RejectedRow
from clusterer.provisioning.table import NewRow
from clusterer.services import Context
from clusterer.services.periodic import sync
from clusterer.services.table import reload, write_back
from clusterer.services.table.reload_report import described
from clusterer.store import Cause, ClusterKey
from clusterer.store.reloads import ReloadStore
from tests.support.provisioning import (
    KEY,
    NODE_A,
    NODE_B,
    MakeContext,
    contexts,
    edit,
    events,
    provision,
    sql,
)


@pytest.fixture
def lite(redis_url: str, tmp_path: Path) -> Iterator[MakeContext]:
    with contexts(db_url=f"sqlite:///{tmp_path / 'test.db'}", redis_url=redis_url) as factory:
        yield factory


def test_reload_makes_nodes_of_rows(make: MakeContext) -> None:
    context = make()
    provision(context, NODE_A, NODE_B, NewRow(2, 1, "udp:[::1]:5060", State.DOWN))
    began = context.nodes.now()
    report = reload.run(context, by="operator root@sip1")
    assert (report.rows, report.loaded, report.unchanged) == (3, 3, 0)
    assert [(node.cluster_id, node.machine_id) for node in report.added] == [(1, 1), (1, 2), (2, 1)]
    assert (report.changed, report.removed, report.rejected, report.note) == ((), (), (), "")
    assert context.nodes.clusters() == [KEY, ClusterKey(2, "udp")]
    view = context.nodes.view(KEY)
    assert [(node.host, node.port, node.state) for node in view.nodes.values()] == [
        ("127.0.0.1", 5566, State.UP),
        ("127.0.0.2", 5566, State.UP),
    ]
    assert [node.version for node in view.nodes.values()] == [1, 2]
    assert view.version == 2
    generation = view.nodes[1].generation / 1000
    assert began - 0.01 <= generation <= context.nodes.now() + 0.01
    assert [(e["event"], e["machine_id"], e["by"], e["after"]) for e in events(context)] == [
        ("added", "1", "operator root@sip1", "up"),
        ("added", "2", "operator root@sip1", "up"),
    ]


def test_reload_notes_loopback_among_others_and_shared_addresses(
    make: MakeContext, caplog: pytest.LogCaptureFixture
) -> None:
    context = make()
    provision(
        context, NODE_A, NewRow(1, 2, "bin:192.0.2.2:5566"), NewRow(1, 3, "bin:192.0.2.2:5566")
    )
    foreseen, report = reload.preview(context).notes, reload.run(context).notes
    assert foreseen == report
    assert "node 1 (bin:127.0.0.1:5566) is at 127.0.0.1, a loopback address" in report[0]
    assert "nodes 2, 3 have one address, 192.0.2.2 port 5566" in report[1]
    names = Names()
    reload.apply_rows(context, [(1, 2)], by="test", settled=True, names=names)
    assert "nodes 3, 2 have one address" in caplog.text or "nodes 2, 3 have one" in caplog.text
    assert "loopback" not in caplog.text, "node 1 was not touched"


def test_reload_equal_rows_change_nothing(make: MakeContext) -> None:
    context = make()
    provision(context, NODE_A, NODE_B)
    reload.run(context)
    before = context.nodes.views()
    report = reload.run(context)
    assert (report.unchanged, report.loaded) == (2, 2)
    assert context.nodes.views() == before
    assert len(events(context)) == 2


def test_reload_changed_row_keeps_generation_and_address(make: MakeContext) -> None:
    context = make()
    provision(context, NODE_A, NODE_B)
    reload.run(context)
    before = context.nodes.view(KEY)
    sql(context, "UPDATE clusterer SET duration = 7, description = NULL WHERE machine_id = 1")
    sql(context, "UPDATE clusterer SET url = 'bin:127.0.0.3:5566' WHERE machine_id = 2")
    time.sleep(0.002)  # generations are milliseconds
    report = reload.run(context)
    after = context.nodes.view(KEY)
    assert [change.columns for change in report.changed] == [
        ("duration", "description"),
        ("url", "host"),
    ]
    assert after.nodes[1] == replace(before.nodes[1], duration=7, description="", version=3)
    assert after.nodes[2].generation > before.nodes[2].generation
    assert (after.nodes[2].host, after.nodes[2].version, after.version) == ("127.0.0.3", 4, 4)
    assert [(e["event"], e["reason"]) for e in events(context)[2:]] == [
        ("changed", "duration, description"),
        ("changed", "url, host"),
    ]


def test_reload_removed_rows_leave_only_counter(make: MakeContext) -> None:
    context = make()
    provision(context, NODE_A, NODE_B, NewRow(2, 1, "bin:127.0.0.1:5566"))
    reload.run(context)
    context.nodes.command(KEY, 2, Event.SUSPECTED, Cause("test"))
    sql(context, "DELETE FROM clusterer WHERE machine_id = 2 OR cluster_id = 2")
    report = reload.run(context)
    assert [(node.cluster_id, node.machine_id) for node in report.removed] == [(1, 2), (2, 1)]
    assert context.nodes.clusters() == [KEY]
    found: Any = context.redis.keys()
    keys = {key.decode() for key in found}
    assert keys == {
        "clusterer:clusters",
        "clusterer:format",
        "clusterer:loaded",
        "clusterer:1:bin:nodes",
        "clusterer:1:bin:node:1",
        "clusterer:1:bin:version",
        "clusterer:1:bin:synced",
        "clusterer:1:events",
        "clusterer:2:bin:version",
        "clusterer:2:events",
    }
    assert events(context)[-1]["after"] == "absent"
    assert context.redis.hkeys("clusterer:1:bin:synced") == [b"1"]


def test_reload_versions_never_repeat(make: MakeContext) -> None:
    context = make()
    provision(context, NODE_A)
    versions = []
    for _ in range(3):
        reload.run(context)
        versions.append(context.nodes.view(KEY).nodes[1].version)
        sql(context, "DELETE FROM clusterer")
        report = reload.run(context)
        assert report.note == "table 'clusterer' is empty: no node is left"
        provision(context, NODE_A)
    assert versions == [1, 3, 5]


def test_reload_changed_protocol_moves_node(lite: MakeContext) -> None:
    context = lite()
    provision(context, NODE_A)
    reload.run(context)
    sql(context, "UPDATE clusterer SET url = 'udp:127.0.0.1:5060'")
    report = reload.run(context)
    assert (len(report.added), len(report.removed)) == (1, 1)
    assert context.nodes.clusters() == [ClusterKey(1, "udp")]


def test_reload_without_persistent_mode_drops_local_changes(make: MakeContext) -> None:
    context = make()
    provision(context, NODE_A, NODE_B)
    reload.run(context)
    context.nodes.command(KEY, 1, Event.SET_DOWN, Cause("test"))
    report = reload.run(context)
    assert [change.columns for change in report.changed] == [("state",)]
    assert context.nodes.view(KEY).nodes[1].state is State.UP
    assert context.redis.zcard("clusterer:1:bin:dirty") == 0


def test_reload_in_persistent_mode_writes_local_changes(make: MakeContext) -> None:
    context = make(persistent_mode=True)
    provision(context, NODE_A, NODE_B)
    reload.run(context)
    context.nodes.command(KEY, 1, Event.SET_DOWN, Cause("test"))
    context.nodes.command(KEY, 2, Event.SUSPECTED, Cause("test"))
    sql(context, "UPDATE clusterer SET duration = 7 WHERE machine_id = 1")
    report = reload.run(context)
    assert report.flushed.written == 2
    assert [change.columns for change in report.changed] == [("duration",)]
    view = context.nodes.view(KEY)
    assert (view.nodes[1].state, view.nodes[1].duration) == (State.DOWN, 7)
    assert view.nodes[2].state is State.PROBING
    rows = sql(context, "SELECT state, no_tries, last_attempt FROM clusterer ORDER BY id")
    assert rows == [(0, 0, 0), (2, 1, view.nodes[2].last_attempt)]


def test_reload_table_edit_wins_and_is_reported(make: MakeContext) -> None:
    context = make(persistent_mode=True)
    more = (NewRow(1, i, f"bin:127.0.0.{i}:1") for i in (3, 4, 5))
    provision(context, NODE_A, NODE_B, *more)
    reload.run(context)
    context.nodes.command(KEY, 2, Event.SUSPECTED, Cause("test"))
    reload.run(context)
    for machine_id in range(1, 6):
        context.nodes.command(KEY, machine_id, Event.SET_DOWN, Cause("test"))
    sql(context, "UPDATE clusterer SET state = 1, no_tries = 0, last_attempt = 0 WHERE state = 2")
    sql(context, "DELETE FROM clusterer WHERE machine_id = 3")
    sql(context, "UPDATE clusterer SET state = 9 WHERE machine_id = 4")
    sql(context, "UPDATE clusterer SET url = 'x' WHERE machine_id = 5")
    foreseen, report = reload.preview(context), reload.run(context)
    assert (foreseen.flushed.waiting, report.flushed.written) == (2, 2)
    lines = list(described(report))[1:]
    assert list(described(foreseen, dry_run=True))[1:-1] == lines[:-1]
    assert [line for line in lines if not line.startswith(("  rejected", "  kept"))] == [
        "  removed  cluster 1, node 3: bin:127.0.0.3:1",
        (
            "  edited   cluster 1, node 2: bin:127.0.0.2:5566 "
            "(the table's state 1, no_tries 0, last_attempt 0 wins)"
        ),
        "Written to the table first: 2 changed nodes.",
    ]
    assert context.nodes.view(KEY).nodes[2].state is State.UP


def test_reload_report_of_other_machine_is_no_edit(make: MakeContext) -> None:
    context = make(persistent_mode=True)
    provision(context, NODE_A, NODE_B)
    reload.run(context)
    now = int(context.nodes.now())
    edit(context, 2, state=2, no_tries=3, last_attempt=now, duration=7)
    (change,) = reload.run(context).changed
    assert change.columns == ("duration",)
    for _ in range(2):
        assert (reload.run(context).unchanged, sync.run(context).written) == (2, 0)
    node = context.nodes.view(KEY).nodes[2]
    assert (node.condition, node.no_tries, node.duration) == (Condition.UP, 0, 7)
    (event,) = [each for each in events(context) if each["event"] == "reported in table"]
    assert (event["by"], event["before"], event["after"]) == ("reload", "up", "up")
    assert f"wrote state 2, no_tries 3, last_attempt {now}" in event["reason"]
    sql(context, "UPDATE clusterer SET state = 0 WHERE machine_id = 2")
    reload.run(context)
    assert context.nodes.view(KEY).nodes[2].state is State.DOWN


def test_reload_change_after_write_is_kept(
    make: MakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = make(persistent_mode=True)
    provision(context, NODE_A)
    reload.run(context)
    sql(context, "UPDATE clusterer SET duration = 7")
    flush = write_back.flush

    def change_after(own: Context) -> write_back.SyncReport:
        report = flush(own)
        context.nodes.command(KEY, 1, Event.SET_DOWN, Cause("test"))
        return report

    with monkeypatch.context() as patch:
        patch.setattr(write_back, "flush", change_after)
        reload.run(context)
    node = context.nodes.view(KEY).nodes[1]
    assert (node.state, node.duration) == (State.DOWN, 7)
    assert sql(context, "SELECT state FROM clusterer") == [(1,)]
    assert sync.run(context) == write_back.SyncReport(written=1)
    assert sql(context, "SELECT state FROM clusterer") == [(0,)]


def test_reload_nodes_are_due_by_state(make: MakeContext) -> None:
    context = make()
    provision(context, NODE_A, replace(NODE_B, state=State.PROBING), NewRow(1, 3, "bin:[::1]"))
    now = context.nodes.now()
    edit(context, 3, state=2, no_tries=3, last_attempt=int(now) - 10)
    reload.run(context)
    scores: Any = context.redis.zrange("clusterer:1:bin:due", 0, -1, withscores=True)
    due = dict(scores)
    assert sorted(due) == [b"2", b"3"]
    assert due[b"2"] / 1000 == pytest.approx(now + 1, abs=4)
    assert due[b"3"] == (int(now) + 20) * 1000


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("last_attempt", [0, 1_700_000_000, 4_000_000_000, 140_733_193_387_992])
def test_reload_row_disabled_for_ever_is_up(
    lite: MakeContext, persistent: bool, last_attempt: int
) -> None:
    """OpenSIPS 2.2 writes that a node failed, and never that it is back."""
    context = lite(persistent_mode=persistent)
    provision(context, NODE_A, NODE_B, NewRow(1, 3, "bin:[::1]"))
    edit(context, 3, state=2, no_tries=3, last_attempt=last_attempt)
    reload.run(context)
    edit(context, 2, state=2, no_tries=3, last_attempt=last_attempt)
    for _ in range(3):
        reload.run(context)
        for node in context.nodes.view(KEY).nodes.values():
            assert (node.condition, node.no_tries) == (Condition.UP, 0)
            assert node.last_attempt <= 1_700_000_000
    assert reload.run(context).unchanged == 3
    assert sync.run(context) == write_back.SyncReport()
    reported = [each["machine_id"] for each in events(context) if each["event"].startswith("rep")]
    assert reported == (["2"] if persistent else [])
    assert sql(context, "SELECT state FROM clusterer") == [(1,), (2,), (2,)]


def test_reload_row_loaded_as_up_is_written_later(lite: MakeContext) -> None:
    context = lite(persistent_mode=True)
    provision(context, NODE_A, NODE_B)
    edit(context, 2, state=2, no_tries=3, last_attempt=7)
    reload.run(context)
    context.nodes.command(KEY, 2, Event.SET_DOWN, Cause("test"))
    assert sync.run(context) == write_back.SyncReport(written=1)
    assert sql(context, "SELECT state, no_tries FROM clusterer WHERE id = 2") == [(0, 0)]


def test_reload_bad_rows_are_skipped_and_named(make: MakeContext) -> None:
    context = make(url_col="address")
    provision(context, NODE_A, NODE_B, NewRow(1, 3, "bin:10.0.0.1:0"), NewRow(-1, 4, "bin:[::1]"))
    report = reload.run(context)
    assert report.rejected == (
        RejectedRow(3, "address", "port '0' is not a number from 1 to 65535"),
        RejectedRow(4, "cluster_id", "negative: -1"),
    )
    assert (report.rows, report.loaded, report.note) == (4, 2, "")


def test_reload_bad_row_leaves_its_node(make: MakeContext) -> None:
    context = make()
    provision(context, NODE_A, NODE_B, NewRow(1, 3, "bin:sip3.example.org:1"))
    reload.run(context, names=Names(lambda name: ["10.0.0.3"]))
    before = context.nodes.view(KEY)
    sql(context, "UPDATE clusterer SET state = 5, url = 'bin:127.0.0.2:1' WHERE machine_id = 2")

    def no_dns(name: str) -> list[str]:
        raise OSError("resolver away")

    foreseen = reload.preview(context, names=Names(no_dns))
    report = reload.run(context, names=Names(no_dns))
    assert [row.column for row in report.rejected] == ["state", "url"]
    assert [node.machine_id for node in report.kept] == [2, 3]
    assert (report.loaded, report.changed, report.removed) == (1, (), ())
    assert context.nodes.view(KEY) == before
    assert (foreseen.kept, foreseen.rejected) == (report.kept, report.rejected)
    sql(context, "UPDATE clusterer SET state = 1 WHERE machine_id = 2")
    sql(context, "DELETE FROM clusterer WHERE machine_id = 3")
    report = reload.run(context)
    assert [change.after.port for change in report.changed] == [1]
    assert [node.machine_id for node in report.removed] == [3]


def test_reload_bad_row_beside_good_one_keeps_nothing(lite: MakeContext) -> None:
    context = lite()
    columns = "cluster_id, machine_id, url, state, last_attempt, failed_attempts, no_tries"
    sql(context, f"CREATE TABLE clusterer (id INTEGER, {columns}, duration, description)")
    sql(context, "INSERT INTO clusterer VALUES (1, 1, 2, 'bin:10.0.0.2', 1, 0, 3, 0, 30, NULL)")
    reload.run(context)
    sql(context, "UPDATE clusterer SET url = 'bin:nonsense:x'")
    sql(context, "INSERT INTO clusterer VALUES (2, 1, 2, 'udp:10.0.0.2:1', 1, 0, 3, 0, 30, NULL)")
    report = reload.run(context)
    assert ([str(node.url) for node in report.removed], report.kept) == (["bin:10.0.0.2"], ())


def test_reload_double_and_null_rows_are_rejected(lite: MakeContext) -> None:
    context = lite()
    columns = "cluster_id, machine_id, url, state, last_attempt, failed_attempts, no_tries"
    sql(context, f"CREATE TABLE clusterer (id INTEGER, {columns}, duration, description)")
    for values in (
        "1, 1, 1, 'bin:127.0.0.1', 1, 0, 3, 0, 30, NULL",
        "2, 1, 1, 'bin:127.0.0.2', 1, 0, 3, 0, 30, NULL",
        "3, 1, NULL, 'bin:127.0.0.2', 1, 0, 3, 0, 30, NULL",
        "NULL, 1, 4, 'bin:127.0.0.2', 1, 0, 3, 0, 30, NULL",
        "5, 1, 5, 'bin:127.0.0.2', 1, 0, 'x', 0, 30, NULL",
    ):
        sql(context, "INSERT INTO clusterer VALUES (" + values + ")")  # noqa: S608 - constants
    report = reload.run(context)
    assert {str(row) for row in report.rejected} == {
        "row None, column 'id': null",
        "row 2, column 'machine_id': doubled: node 1 of cluster 1 is in row 1 already",
        "row 3, column 'machine_id': null",
        "row 5, column 'failed_attempts': 'x' is not a whole number",
    }
    assert [node.port for node in report.added] == [5555]


def test_reload_resolves_host_names(lite: MakeContext) -> None:
    context = lite()
    provision(context, NewRow(1, 1, "bin:sip1.example.org:5566"), NODE_B)
    reload.run(context, names=Names(lambda name: ["10.0.0.2", "10.0.0.1"]))
    node = context.nodes.view(KEY).nodes[1]
    assert (node.host, node.url) == ("10.0.0.1", "bin:sip1.example.org:5566")
    report = reload.run(context, names=Names(lambda name: ["10.0.0.9"]))
    assert report.changed[0].readdressed


def test_reload_without_good_row_changes_nothing(lite: MakeContext) -> None:
    context = lite()
    provision(context, NewRow(1, 1, "bin:sip1.example.org:5566"))
    reload.run(context, names=Names(lambda name: ["10.0.0.1"]))
    before = context.nodes.views()

    def no_dns(name: str) -> list[str]:
        raise OSError("resolver away")

    report = reload.run(context, names=Names(no_dns))
    assert (report.loaded, len(report.rejected)) == (0, 1)
    assert report.note == ("no row of table 'clusterer' can be used: all nodes stay as they were")
    assert context.nodes.views() == before


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("DROP TABLE clusterer", "there is no table 'clusterer': create it with `clusterer init-"),
        ("UPDATE version SET table_version = 2", "'clusterer' has version 2"),
        ("ALTER TABLE clusterer RENAME COLUMN url TO uri", r"no column 'url' \(url_col\)"),
    ],
)
def test_reload_unusable_table_changes_nothing(
    make: MakeContext, damage: str, message: str
) -> None:
    context = make()
    provision(context, NODE_A)
    reload.run(context)
    before = context.nodes.views()
    sql(context, damage)
    with pytest.raises(ProvisioningError, match=message):
        reload.run(context)
    assert context.nodes.views() == before


@pytest.mark.parametrize("persistent", [False, True])
def test_reload_database_down_changes_nothing(lite: MakeContext, persistent: bool) -> None:
    context = lite(persistent_mode=persistent)
    provision(context, NODE_A)
    reload.run(context)
    context.nodes.command(KEY, 1, Event.SET_DOWN, Cause("test"))
    before = context.nodes.views()
    away = lite(db_url="sqlite:////none/x.db", persistent_mode=persistent)
    with pytest.raises(ProvisioningError, match=r"nor the file /none/x\.db"):
        reload.run(away)
    assert context.nodes.views() == before
    assert context.redis.zcard("clusterer:1:bin:dirty") == 1


def test_reload_redis_down_is_reported(lite: MakeContext) -> None:
    provision(lite(), NODE_A)
    with pytest.raises(StateUnavailable, match="cannot read the format of the keys: Redis at"):
        reload.run(lite(redis_url="redis://127.0.0.1:1/0"))


def _interfere(
    monkeypatch: pytest.MonkeyPatch, context: Context, times: int, event: Event
) -> list[int]:
    """Change a node after Redis was read and before the reload commits."""
    calls: list[int] = []
    original = ReloadStore.commit

    def commit(self: ReloadStore, *args: Any) -> Any:
        calls.append(1)
        if len(calls) <= times:
            context.nodes.command(KEY, 1, event, Cause("test"))
        return original(self, *args)

    monkeypatch.setattr(ReloadStore, "commit", commit)
    return calls


def test_reload_conflict_is_retried_and_reported_once(
    make: MakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = make(persistent_mode=True)
    provision(context, NODE_A, NewRow(2, 1, "bin:127.0.0.1"))
    reload.run(context)
    sql(context, "UPDATE clusterer SET duration = 7")
    calls = _interfere(monkeypatch, context, 1, Event.SET_DOWN)
    report = reload.run(context)
    assert len(calls) == 2
    assert [(c.after.cluster_id, c.columns) for c in report.changed] == [
        (1, ("duration",)),
        (2, ("duration",)),
    ]
    node = context.nodes.view(KEY).nodes[1]
    assert (node.state, node.duration) == (State.DOWN, 7)
    assert sql(context, "SELECT state FROM clusterer WHERE cluster_id = 1") == [(0,)]


def test_reload_endless_conflict_raises_with_name(
    lite: MakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = lite()
    provision(context, replace(NODE_A, failed_attempts=1000))
    reload.run(context)
    sql(context, "UPDATE clusterer SET duration = 7")
    _interfere(monkeypatch, context, 1000, Event.SUSPECTED)
    with pytest.raises(StateUnavailable, match="clusters 1:bin changed 20 times"):
        reload.run(context)


@pytest.mark.serial
def test_reload_of_10000_rows_takes_seconds(make: MakeContext, redis_client: redis.Redis) -> None:
    context = make()
    small = [NewRow(i // 2 + 2, i % 2 + 1, f"bin:127.1.{i // 250}.1") for i in range(8000)]
    large = [NewRow(1, i + 1, f"bin:127.2.{i // 250}.{i % 250 + 1}") for i in range(2000)]
    provision(context, *small, *large)
    before = cpu_s(redis_client)
    report = reload.run(context)
    took = cpu_s(redis_client) - before
    print(f"10,000 rows in {took:.2f} s of CPU")
    assert (len(report.added), len(context.nodes.clusters())) == (10_000, 4001)
    assert len(context.nodes.view(KEY).nodes) == 2000
    assert took < 25, "with the tracing of coverage on a slow host; quadratic cost is minutes"
    assert reload.run(context).unchanged == 10_000


def cpu_s(client: redis.Redis) -> float:
    """Return the CPU time that this process and Redis have used so far."""
    of_redis = client.info("cpu")
    used = (float(of_redis[name]) for name in ("used_cpu_user", "used_cpu_sys"))
    return time.process_time() + sum(used)
