"""Persistent mode: states reach the table, edits in the table win, nothing is lost between."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from clusterer.membership import Condition, Event, State
from clusterer.provisioning.table import NewRow, write_states
from clusterer.services import Context
from clusterer.services.periodic import sync
from clusterer.services.table import reload, write_back
from clusterer.store import Cause, NodeStore
from clusterer.store.dirty import DirtyNodes
from tests.support.mariadb_server import MariaDBServer
from tests.support.processes import wait_until
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

CAUSE = Cause("test")


SETTINGS = {"persistent_mode": True}


@pytest.fixture
def context(make: MakeContext) -> Context:
    """Two nodes, loaded."""
    context = make()
    provision(context, NODE_A, NODE_B)
    reload.run(context)
    return context


def rows(context: Context) -> list[tuple[Any, ...]]:
    return sql(context, "SELECT state, no_tries, last_attempt FROM clusterer ORDER BY id")


def dirty(context: Context) -> int:
    return int(context.redis.zcard("clusterer:1:bin:dirty"))


def synced(context: Context, machine_id: int) -> str:
    noted = context.redis.hmget("clusterer:1:bin:synced", [str(machine_id)])[0]
    assert isinstance(noted, bytes)
    return noted.decode()


def test_sync_changes_are_written_once(context: Context) -> None:
    node = context.nodes.command(KEY, 2, Event.SUSPECTED, CAUSE)
    assert sync.run(context) == write_back.SyncReport(written=1)
    assert rows(context) == [(1, 0, 0), (2, 1, node.last_attempt)]
    assert synced(context, 2) == f"2 1 {node.last_attempt}"
    assert dirty(context) == 0
    assert sync.run(context) == write_back.SyncReport()


def test_sync_leaves_other_columns(context: Context) -> None:
    context.nodes.command(KEY, 2, Event.SET_DOWN, CAUSE)
    sql(context, "UPDATE clusterer SET duration = 7, url = 'bin:10.0.0.9:1'")
    assert sync.run(context).written == 1
    assert sql(context, "SELECT state, duration, url FROM clusterer WHERE id = 2") == [
        (0, 7, "bin:10.0.0.9:1")
    ]


def test_sync_without_persistent_mode_writes_nothing(make: MakeContext, context: Context) -> None:
    context.nodes.command(KEY, 2, Event.SET_DOWN, CAUSE)
    assert sync.run(make(persistent_mode=False)) == write_back.SyncReport()
    assert rows(context) == [(1, 0, 0)] * 2
    assert dirty(context) == 1


def test_sync_table_edit_wins_and_is_event(context: Context) -> None:
    context.nodes.command(KEY, 2, Event.SUSPECTED, CAUSE)
    sql(context, "UPDATE clusterer SET state = 0 WHERE id = 2")
    report = sync.run(context)
    assert (report.written, report.waiting) == (0, 0)
    assert [(node.machine_id, node.state) for node in report.edited] == [(2, State.DOWN)]
    node = context.nodes.view(KEY).nodes[2]
    assert (node.state, node.no_tries, node.last_attempt) == (State.DOWN, 0, 0)
    assert rows(context)[1] == (0, 0, 0)
    event = events(context)[-1]
    assert (event["event"], event["by"], event["after"]) == ("edited in table", "sync", "down")
    assert event["reason"].startswith("table has state 0, no_tries 0, last_attempt 0, not state 2")
    assert dirty(context) == 0
    assert synced(context, 2) == "0 0 0"
    context.nodes.command(KEY, 2, Event.SET_UP, CAUSE)
    assert sync.run(context).written == 1
    assert rows(context)[1] == (1, 0, 0)


@pytest.mark.parametrize(
    "written",
    [
        {"state": 2, "no_tries": 3},
        {"state": 2, "last_attempt": 7},
        {"no_tries": 2, "last_attempt": 7},
    ],
)
def test_sync_report_of_other_machine_changes_no_state(
    context: Context, written: dict[str, int]
) -> None:
    node = context.nodes.command(KEY, 2, Event.SUSPECTED, CAUSE)
    edit(context, 2, **written)
    (_, reported) = rows(context)
    assert sync.run(context) == write_back.SyncReport(waiting=1)
    assert context.nodes.view(KEY).nodes[2] == node
    event = events(context)[-1]
    assert (event["event"], event["by"]) == ("reported in table", "sync")
    assert (event["before"], event["after"]) == ("probing", "probing")
    values = "state {}, no_tries {}, last_attempt {}".format(*reported)
    assert event["reason"].startswith(f"another node's process wrote {values}; Redis has state 2,")
    assert sync.run(context) == write_back.SyncReport(written=1)
    assert rows(context)[1] == (2, 1, node.last_attempt)
    assert (dirty(context), len(events(context))) == (0, 4)


def test_sync_node_up_here_stays_up(context: Context) -> None:
    """OpenSIPS 2.2 counts for itself and never writes that the node is back."""
    context.nodes.command(KEY, 2, Event.SUSPECTED, CAUSE)
    sync.run(context)
    context.nodes.command(KEY, 2, Event.PROBE_SUCCEEDED, CAUSE)
    for count in (1, 2, 3):
        now = int(context.nodes.now()) + count
        edit(context, 2, state=2, no_tries=count, last_attempt=now)
        sync.run(context)
        assert context.nodes.view(KEY).nodes[2].condition is Condition.UP
    sync.run(context)
    assert rows(context)[1][:2] == (1, 1)


@pytest.mark.parametrize(
    "edited",
    [
        {"state": 1},
        {"state": 1, "no_tries": 0},
        {"state": 1, "no_tries": 0, "last_attempt": 0},
        {"state": 0},
        {"state": 0, "no_tries": 0},
    ],
)
@pytest.mark.parametrize("reported", [False, True])
def test_sync_table_edit_wins_over_failure(
    context: Context, edited: dict[str, int], reported: bool
) -> None:
    context.nodes.command(KEY, 2, Event.SUSPECTED, CAUSE)
    sync.run(context)
    context.nodes.command(KEY, 2, Event.SUSPECTED, CAUSE)
    if reported:
        edit(context, 2, state=2, no_tries=9)
        assert sync.run(context).waiting == 1
    edit(context, 2, **edited)
    (node,) = sync.run(context).edited
    assert node.state == rows(context)[1][0] == edited["state"]


def test_sync_edit_behind_local_change_is_taken_next_time(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    context.nodes.command(KEY, 2, Event.SUSPECTED, CAUSE)
    sql(context, "UPDATE clusterer SET state = 0 WHERE id = 2")
    original = DirtyNodes.synced

    def change_meanwhile(self: DirtyNodes, node: Any) -> Any:
        context.nodes.command(KEY, 2, Event.SUSPECTED, CAUSE)
        return original(self, node)

    with monkeypatch.context() as patch:
        patch.setattr(DirtyNodes, "synced", change_meanwhile)
        assert sync.run(context).waiting == 1
    assert rows(context)[1] == (0, 0, 0)
    assert len(sync.run(context).edited) == 1
    assert context.nodes.view(KEY).nodes[2].state is State.DOWN


def test_sync_change_right_after_taken_edit_stays_marked(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    context.nodes.command(KEY, 2, Event.SUSPECTED, CAUSE)
    sql(context, "UPDATE clusterer SET state = 0 WHERE id = 2")
    original = DirtyNodes.end

    def change_first(self: DirtyNodes, written: Any) -> int:
        context.nodes.command(KEY, 2, Event.SET_UP, CAUSE)
        return original(self, written)

    with monkeypatch.context() as patch:
        patch.setattr(DirtyNodes, "end", change_first)
        report = sync.run(context)
    assert (len(report.edited), report.waiting, dirty(context)) == (1, 1, 1)
    assert sync.run(context).written == 1
    assert rows(context)[1] == (1, 0, 0)


def test_sync_change_during_taking_of_edit_stays_marked(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    context.nodes.command(KEY, 2, Event.SUSPECTED, CAUSE)
    sql(context, "UPDATE clusterer SET state = 0 WHERE id = 2")
    original = NodeStore.replace

    def change_after(self: NodeStore, *args: Any) -> Any:
        assert original(self, *args) is not None
        return context.nodes.command(KEY, 2, Event.SET_UP, CAUSE)

    with monkeypatch.context() as patch:
        patch.setattr(NodeStore, "replace", change_after)
        sync.run(context)
    assert dirty(context) == 1
    assert sync.run(context) == write_back.SyncReport(written=1)
    assert rows(context)[1] == (1, 0, 0)
    assert synced(context, 2) == "1 0 0"


def test_sync_impossible_edit_is_named_and_left(
    context: Context, caplog: pytest.LogCaptureFixture
) -> None:
    context.nodes.command(KEY, 2, Event.SUSPECTED, CAUSE)
    sql(context, "UPDATE clusterer SET state = 9 WHERE id = 2")
    report = sync.run(context)
    (dropped,) = report.dropped
    assert dropped == (
        "cluster 1:bin node 2, row 2: another program wrote an invalid value to the row: "
        "column 'state': 9 is not from 0 to 2"
    )
    place, _, why = dropped.partition(", row 2: ")
    assert f"{place}, row 2: state not written to the table: {why}" in caplog.text
    assert rows(context)[1] == (9, 0, 0)
    assert context.nodes.view(KEY).nodes[2].state is State.PROBING
    assert sync.run(context) == write_back.SyncReport()


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM clusterer WHERE id = 2",
        "UPDATE clusterer SET machine_id = 9 WHERE id = 2",
        "UPDATE clusterer SET cluster_id = 9 WHERE id = 2",
    ],
)
def test_sync_missing_row_is_named_once(context: Context, statement: str) -> None:
    context.nodes.command(KEY, 2, Event.SET_DOWN, CAUSE)
    sql(context, statement)
    (dropped,) = sync.run(context).dropped
    assert dropped.startswith("cluster 1:bin node 2, row 2: row missing")
    assert (2, 0, 0) not in rows(context)
    assert sync.run(context) == write_back.SyncReport()


def test_sync_change_while_writing_stays_marked(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    context.nodes.command(KEY, 2, Event.SUSPECTED, CAUSE)
    original = DirtyNodes.end

    def change_first(self: DirtyNodes, written: Any) -> int:
        context.nodes.command(KEY, 2, Event.SET_UP, CAUSE)
        return original(self, written)

    with monkeypatch.context() as patch:
        patch.setattr(DirtyNodes, "end", change_first)
        assert sync.run(context) == write_back.SyncReport(written=1, waiting=1)
    assert rows(context)[1][0] == 2
    assert sync.run(context) == write_back.SyncReport(written=1)
    assert rows(context)[1][:2] == (1, 0)


class _KilledError(Exception):
    pass


def test_sync_own_write_after_crash_is_no_edit(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    context.nodes.command(KEY, 2, Event.SUSPECTED, CAUSE)

    def die(self: DirtyNodes, written: Any) -> int:
        raise _KilledError

    with monkeypatch.context() as patch:
        patch.setattr(DirtyNodes, "end", die)
        with pytest.raises(_KilledError):
            sync.run(context)
    assert rows(context)[1][0] == 2
    context.nodes.command(KEY, 2, Event.SET_UP, CAUSE)
    assert sync.run(context) == write_back.SyncReport(written=1)
    assert rows(context)[1][:2] == (1, 0)
    assert context.nodes.view(KEY).nodes[2].state is State.UP
    assert synced(context, 2).startswith("1 0 ")
    assert "," not in synced(context, 2)


def test_sync_late_writer_leaves_no_old_state(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job stalls before its UPDATE, meanwhile the node returns to what the table holds."""
    context.nodes.command(KEY, 2, Event.SET_DOWN, CAUSE)
    original = write_states

    def stall(*args: Any) -> Any:
        monkeypatch.setattr(write_back, "write_states", original)
        context.nodes.command(KEY, 2, Event.SET_UP, CAUSE)
        assert sync.run(context).written == 1
        return original(*args)

    monkeypatch.setattr(write_back, "write_states", stall)
    assert sync.run(context) == write_back.SyncReport(written=1, waiting=1)
    assert rows(context)[1][0] == 0
    assert sync.run(context) == write_back.SyncReport(written=1)
    assert rows(context)[1] == (1, 0, 0)
    assert context.nodes.view(KEY).nodes[2].state is State.UP


def test_sync_write_of_other_job_is_no_edit(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job stalls before its UPDATE, meanwhile another writes a newer state."""
    context.nodes.command(KEY, 2, Event.SET_DOWN, CAUSE)
    original = write_states

    def stall(*args: Any) -> Any:
        monkeypatch.setattr(write_back, "write_states", original)
        context.nodes.command(KEY, 2, Event.SET_UP, CAUSE)
        context.nodes.command(KEY, 2, Event.SUSPECTED, CAUSE)
        assert sync.run(context).written == 1
        return original(*args)

    monkeypatch.setattr(write_back, "write_states", stall)
    assert sync.run(context) == write_back.SyncReport(waiting=1)
    sync.run(context)
    node = context.nodes.view(KEY).nodes[2]
    assert node.state is State.PROBING
    assert rows(context)[1] == (2, 1, node.last_attempt)
    assert dirty(context) == 0


@contextmanager
def _jobs(make: MakeContext, count: int) -> Iterator[None]:
    """Keep ``count`` sync jobs running at once."""
    stop = threading.Event()

    def work() -> None:
        own = make()
        while not stop.is_set():
            sync.run(own)

    with ThreadPoolExecutor(count) as pool:
        jobs = [pool.submit(work) for _ in range(count)]
        try:
            yield
        finally:
            stop.set()
    for job in jobs:
        job.result()


def test_sync_jobs_at_once_agree(make: MakeContext) -> None:
    context = make()
    machines = range(1, 61)
    provision(context, *(NewRow(1, i, f"bin:127.0.1.{i}") for i in machines))
    reload.run(context)
    with _jobs(make, 3):
        for event in (Event.SUSPECTED, Event.SET_UP, Event.SUSPECTED, Event.SET_DOWN):
            for machine_id in machines:
                context.nodes.command(KEY, machine_id, event, CAUSE)
    wait_until(
        lambda: sync.run(context).waiting == 0 and not dirty(context), message="all is written"
    )
    found = {event["event"] for event in events(context)}
    assert found == {"added", "suspected", "set up", "set down"}
    nodes = context.nodes.view(KEY).nodes.values()
    assert rows(context) == [(0, node.no_tries, node.last_attempt) for node in nodes]


@pytest.fixture
def many(make: MakeContext) -> Context:
    """More changed nodes than go to the table at once."""
    context = make()
    provision(context, *(NewRow(1, i, f"bin:127.0.1.{i}") for i in range(1, 251)))
    reload.run(context)
    for machine_id in range(1, 251):
        context.nodes.command(KEY, machine_id, Event.SET_DOWN, CAUSE)
    return context


def test_sync_slow_database_gets_changes_in_parts(
    many: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync, "BUDGET_S", 0.0)
    assert sync.run(many) == write_back.SyncReport(written=100, waiting=150)
    assert dirty(many) == 150
    assert sync.run(many) == write_back.SyncReport(written=100, waiting=50)
    assert sync.run(many) == write_back.SyncReport(written=50)
    assert {row[0] for row in rows(many)} == {0}


def test_sync_stopped_worker_starts_no_further_batch(many: Context) -> None:
    signals = iter([False, True])
    assert sync.run(many, signals.__next__) == write_back.SyncReport(written=200, waiting=50)
    assert dirty(many) == 50
    assert sync.run(many) == write_back.SyncReport(written=50)


def test_sync_job_ended_in_middle_keeps_written_rows(
    many: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = write_states, list[None]()

    def die_later(*args: Any) -> Any:
        calls.append(None)
        if len(calls) == 3:
            raise _KilledError
        return original(*args)

    monkeypatch.setattr(write_back, "write_states", die_later)
    with pytest.raises(_KilledError):
        sync.run(many)
    assert dirty(many) == 50


def test_sync_removed_node_leaves_no_mark(context: Context) -> None:
    context.nodes.command(KEY, 2, Event.SET_DOWN, CAUSE)
    context.redis.delete("clusterer:1:bin:node:2")
    assert sync.run(context) == write_back.SyncReport()
    assert dirty(context) == 0


def test_sync_list_of_states_is_bounded(context: Context) -> None:
    marks = DirtyNodes(context.settings, context.redis)
    for state in (Event.SUSPECTED, Event.SET_UP) * 20:
        context.nodes.command(KEY, 2, state, CAUSE)
        context.redis.hset("clusterer:1:bin:node:2", "last_attempt", context.redis.incr("n"))
        marks.begin([(KEY, 2)])
    noted = synced(context, 2).split(",")
    assert len(noted) == 8
    assert noted[0] == "1 0 0"
    assert noted[-1].endswith(" 40")
    assert sync.run(context).written == 1


def test_sync_database_down_keeps_marks_and_logs_once(
    make: MakeContext, context: Context, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    context.nodes.command(KEY, 2, Event.SET_DOWN, CAUSE)
    away = make(db_url="sqlite:////none/x.db")
    for _ in range(3):
        report = sync.run(away)
        assert "nor the file" in report.error
    assert caplog.text.count("sync: changes not written to the table") == 1
    assert dirty(context) == 1
    assert synced(context, 2) == "1 0 0"
    context.database.away = True
    assert sync.run(context).written == 1
    assert "sync writes to the table again" in caplog.text


def test_sync_database_frozen_loses_no_change(
    mariadb_server: MariaDBServer, mariadb_url: str, redis_url: str
) -> None:
    with contexts(db_url=mariadb_url, redis_url=redis_url, persistent_mode=True) as make:
        context = make()
        provision(context, NODE_A, NODE_B)
        reload.run(context)
        context.nodes.command(KEY, 2, Event.SET_DOWN, CAUSE)
        mariadb_server.pause()
        assert sync.run(context).error
        mariadb_server.resume()
        assert sync.run(context).written == 1
        assert rows(context)[1] == (0, 0, 0)
